"""Games for the solvers: preference matrices with ``P + P^T = 1``, float32."""

from typing import Any

import numpy as np


def game(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random preference matrices ``[..., K, K]``."""
    upper = np.triu(rng.random((*shape, shape[-1])), 1)
    return (upper + np.tril(1 - upper.swapaxes(-1, -2), -1) + np.eye(shape[-1]) / 2).astype(np.float32)


def onpo_tabular(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.normal(size=(2, 4)).astype(np.float32), game(rng, 2, 4)), {"iterations": 20}


def nash_equilibrium(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (game(rng, 2, 4), rng.normal(size=(2, 4)).astype(np.float32)), {"beta": 0.2}


EXAMPLES = {"onpo_tabular": onpo_tabular, "nash_equilibrium": nash_equilibrium}
