"""Small problems for the evaluation statistics."""

from typing import Any

import jax
import numpy as np

from rlx.evaluation.length_controlled import Weights
from tests.examples.game import game

Call = tuple[tuple[Any, ...], dict[str, Any]]


def answers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers of three problems, their correctness, and which of 8 samples a problem has."""
    where = np.arange(8) < np.array([[8], [6], [5]])
    chosen = rng.integers(0, 3, (3, 8))
    return chosen, chosen == 0, where


def pass_at_k(rng: np.random.Generator) -> Call:
    _, correct, where = answers(rng)
    return (correct,), {"k": 3, "where": where}


def best_of_n(rng: np.random.Generator) -> Call:
    _, correct, where = answers(rng)
    return (rng.normal(size=(3, 8)).astype(np.float32), correct), {"k": 3, "where": where}


def majority_at_k(rng: np.random.Generator) -> Call:
    chosen, correct, where = answers(rng)
    return (chosen, correct), {"k": 3, "where": where}


def best_of_majority(rng: np.random.Generator) -> Call:
    return (rng.integers(0, 4, 30), rng.normal(size=4)), {"alpha": 0.1, "k": 2}


def rlccf_vote(rng: np.random.Generator) -> Call:
    return (rng.integers(0, 4, (3, 8)),), {"where": np.arange(8) < np.array([[8], [7], [5]])}


def self_consistency_rate(rng: np.random.Generator) -> Call:
    return (rng.dirichlet(np.ones(4)),), {"budget": 9}


def third_of(question: int) -> int:
    return question % 3


def okg_allocate(rng: np.random.Generator) -> Call:
    return (third_of,), {"questions": 4, "answers": 3, "budget": 10, "draws": 50}


def elo(rng: np.random.Generator) -> Call:
    first, second = rng.integers(0, 4, 20), rng.integers(0, 4, 20)
    return (first, second, rng.integers(0, 3, 20).astype(np.float32) / 2), {"players": 4}


def bradley_terry_mle(rng: np.random.Generator) -> Call:
    return (rng.integers(1, 9, (4, 4)).astype(np.float32),), {}


def alpha_rank(rng: np.random.Generator) -> Call:
    return (rng.normal(size=(4, 4)).astype(np.float32),), {"alpha": 1.0}


def soft_condorcet(rng: np.random.Generator) -> Call:
    return (game(rng, 4),), {"learning_rate": 0.5, "iterations": 30, "bounds": (-5.0, 5.0)}


def fenchel_young_condorcet(rng: np.random.Generator) -> Call:
    votes = np.stack([rng.permutation(4) for _ in range(6)])
    return (votes,), {"alternatives": 4, "key": jax.random.PRNGKey(0), "iterations": 30}


def preferences(rng: np.random.Generator) -> Call:
    return (rng.integers(0, 9, (4, 4)).astype(np.float32),), {}


def rank_aggregation(rng: np.random.Generator) -> Call:
    return ([rng.permutation(4) for _ in range(5)], rng.integers(1, 4, 5)), {}


def two_level_borda(rng: np.random.Generator) -> Call:
    return (rng.normal(size=(2, 3, 4)).astype(np.float32),), {}


def llm_swiss_round(rng: np.random.Generator) -> Call:
    return (rng.random((5, 3)).astype(np.float32),), {"eliminations": 1}


def sharpe_ratio_at_k(rng: np.random.Generator) -> Call:
    return (rng.normal(size=6), rng.normal(size=6), 0.1), {"k": 3, "safety_threshold": 0.0}


def scope_selective_judging(rng: np.random.Generator) -> Call:
    p = rng.random(60)
    return (p, np.clip(p + 0.01, 0, 1), rng.random(60) < np.minimum(p, 1 - p)), {"alpha": 0.3}


def trustjudge(rng: np.random.Generator) -> Call:
    return (rng.dirichlet(np.ones(5), 3).astype(np.float32),), {}


def trustjudge_verdict(rng: np.random.Generator) -> Call:
    return (rng.dirichlet(np.ones(3), 4), rng.dirichlet(np.ones(3), 4)), {}


def alpaca_eval_length_controlled(rng: np.random.Generator) -> Call:
    first, second = rng.integers(100, 2000, (2, 8))
    return (first, second, rng.normal(size=8), Weights(0.4, 0.8, -0.2)), {}


def arena_rl(rng: np.random.Generator) -> Call:
    return (rng.random((2, 5, 5)), rng.random((2, 5, 5))), {"where": np.arange(5) < np.array([[5], [4]])}


EXAMPLES = {
    "pass_at_k": pass_at_k,
    "best_of_n": best_of_n,
    "majority_at_k": majority_at_k,
    "best_of_majority": best_of_majority,
    "rlccf_vote": rlccf_vote,
    "self_consistency_rate": self_consistency_rate,
    "okg_allocate": okg_allocate,
    "elo": elo,
    "bradley_terry_mle": bradley_terry_mle,
    "alpha_rank": alpha_rank,
    "soft_condorcet": soft_condorcet,
    "fenchel_young_condorcet": fenchel_young_condorcet,
    "rank_aggregation": rank_aggregation,
    "borda": preferences,
    "copeland": preferences,
    "kemeny": preferences,
    "two_level_borda": two_level_borda,
    "llm_swiss_round": llm_swiss_round,
    "sharpe_ratio_at_k": sharpe_ratio_at_k,
    "scope_selective_judging": scope_selective_judging,
    "trustjudge": trustjudge,
    "trustjudge_verdict": trustjudge_verdict,
    "alpaca_eval_length_controlled": alpaca_eval_length_controlled,
    **dict.fromkeys(
        (
            "arena_rl",
            "arenarl_anchor_advantage",
            "arenarl_round_robin_advantage",
            "arenarl_single_elimination_advantage",
        ),
        arena_rl,
    ),
}
