"""Queries and rankings for the solvers of the listwise family."""

from typing import Any

import numpy as np


def zo_rank_gradient(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The three best of seven queries."""
    return (rng.normal(size=(7, 4)).astype(np.float32), rng.permutation(7)[:3].astype(np.int32)), {}


EXAMPLES = {"zo_rank_gradient": zo_rank_gradient}
