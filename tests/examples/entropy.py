"""Examples of calls: methods that control the entropy: selections, weights, regularisers, controllers."""

from collections.abc import Callable
from typing import Any

import numpy as np


def aepo_arbitrary(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.normal(size=6), 0.7), {"number": 2}


def adaptive_entropy_coefficient(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.random(5).astype(np.float32),), {"target": 0.5, "rate": 0.1}


EXAMPLES: dict[str, Callable[..., Any]] = {
    "aepo_arbitrary": aepo_arbitrary,
    "adaptive_entropy_coefficient": adaptive_entropy_coefficient,
}
