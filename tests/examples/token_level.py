"""Candidates to pick from, and a small search tree."""

from typing import Any

import numpy as np


def rso_rejection_sampling(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    keywords = {"num_samples": 3, "where": np.arange(6) < np.array([[6], [4]])}
    return (rng.normal(size=(2, 6)).astype(np.float32), rng.random((2, 21)).astype(np.float32)), keywords


def mcts_backup(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    parents, values, states = np.array([-1, 0, 0, 1, 1]), rng.random(5), rng.random(5)
    return (parents, values, rng.integers(0, 5, 5), states, np.array([0, 1, 4])), {"gamma": 0.9}


EXAMPLES = {"rso_rejection_sampling": rso_rejection_sampling, "mcts_backup": mcts_backup}
