"""Groups of users for the solvers: rewards that disagree, comparisons by users of two kinds."""

from typing import Any

import numpy as np


def maxmin_rlhf(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.normal(size=(2, 3, 5)).astype(np.float32), rng.normal(size=(2, 5)).astype(np.float32)), {"beta": 0.3}


def maxmin_rlhf_mixture(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Twelve users of two kinds with opposed tastes, six comparisons each, two of them missing."""
    features = rng.normal(size=(12, 6, 2, 2))
    taste = np.where(np.arange(12) < 8, 3.0, -3.0)[:, None, None] * features[..., 0]
    order = np.argsort(-taste, -1)[..., None]
    where = np.ones((12, 6), bool)
    where[0, 4:] = False
    chosen_first = np.take_along_axis(features, order, 2).astype(np.float32)
    return (chosen_first,), {"restarts": 4, "where": where}


EXAMPLES = {"maxmin_rlhf": maxmin_rlhf, "maxmin_rlhf_mixture": maxmin_rlhf_mixture}
