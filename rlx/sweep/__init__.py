"""Sweeps: lists of config overrides, run by a pool of processes that can be interrupted (``python -m rlx.sweep``).

A config file declares its sweep next to `get_config`::

    from rlx import sweep

    def get_sweep(name=None):
        return sweep.cross(sweep.product(**{"method.beta": [0.1, 0.5]}), sweep.seeds(3))
"""

from rlx.sweep.expand import (
    chain,
    choice,
    cross,
    loguniform,
    product,
    random,
    seeds,
    uniform,
    zip_,
)

__all__ = ["chain", "choice", "cross", "loguniform", "product", "random", "seeds", "uniform", "zip_"]
