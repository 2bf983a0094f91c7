"""Examples of calls: reward shaping, and what is sampled, kept and how often: budgets, filters, votes."""

from typing import Any

import numpy as np

from rlx.policy.rollouts import Carried

Call = tuple[tuple[Any, ...], dict[str, Any]]


def adaptive_kl_controller(rng: np.random.Generator) -> Call:
    return (np.float32(0.2), rng.random(1).astype(np.float32)), {"n": 512}


def ares_dynamic_kl(rng: np.random.Generator) -> Call:
    coefficients, kl = rng.random((2, 3)).astype(np.float32)
    return (coefficients, np.ones(3, np.float32), kl), {"where": np.array([True, False, True])}


def vas_batch(rng: np.random.Generator) -> Call:
    return (rng.random(9),), {"batch_size": 6, "seed": (0, 1)}


def knapsack_budget_allocation(rng: np.random.Generator) -> Call:
    return (rng.random(5),), {"budget": 30}


def recent_sample_recovery(rng: np.random.Generator) -> Call:
    return (Carried((7,), (8, 9)), list(range(6)), rng.integers(0, 5, 6).tolist()), {"batch_size": 3, "group_size": 4}


def ttrl_majority_reward(rng: np.random.Generator) -> Call:
    return (rng.integers(0, 3, 8),), {"num_samples": 6, "where": np.arange(8) < 7}


EXAMPLES = {
    "adaptive_kl_controller": adaptive_kl_controller,
    "ares_dynamic_kl": ares_dynamic_kl,
    "vas_batch": vas_batch,
    "knapsack_budget_allocation": knapsack_budget_allocation,
    "recent_sample_recovery": recent_sample_recovery,
    "ttrl_majority_reward": ttrl_majority_reward,
}
