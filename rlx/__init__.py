"""rlx: policy optimisation in JAX. Losses are pure functions of arrays; what needs more than jax loads on first use.

>>> import rlx
>>> print(f"{rlx.rdpo(jnp.zeros((3, 2)), jnp.zeros((3, 2)), epsilon=0.2):.4f}")
0.6931
"""

import importlib
from typing import Any

from rlx import aggregate, catalog, errors, method, metrics, numerics, signals, types
from rlx.build import build

__version__ = "0.1.0"
__all__ = ["aggregate", "build", "catalog", "errors", "method", "metrics", "numerics", "signals", "types"]

_LAZY = (
    "config",
    "data",
    "evaluation",
    "game",
    "models",
    "ops",
    "policy",
    "preference",
    "report",
    "reward",
    "sweep",
    "train",
)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"rlx.{name}")
    if name in catalog.CATALOG:
        return catalog.CATALOG[name].call
    raise AttributeError(
        f"module 'rlx' has no attribute {name!r}.{errors.close_matches(name, [*catalog.CATALOG, *_LAZY, *__all__])}"
    )


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, *catalog.CATALOG])
