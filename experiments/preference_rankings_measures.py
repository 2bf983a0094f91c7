"""What experiments/preference_rankings.py measures on pairs: rankings before and after, and what theory says."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rlx
from experiments import claims
from rlx.types import Array

METHODS = ("dpo", "ipo")
METRICS = (
    "loss",
    "reward_accuracy",
    "ranking_accuracy",
    "right_right",
    "right_wrong",
    "wrong_right",
    "wrong_wrong",
    "flipped",
    "right_before",
    "agree",
    "agree_inside",
)
MARGIN = 1e-9
"""Losses that are nearer to the threshold than this are left out, as the specification has it."""


def loss_of(method: str, strength: float) -> Callable[..., Array]:
    """The library's loss with its beta (dpo) or tau (ipo) bound."""
    options = config_of(method, strength)
    return functools.partial(getattr(rlx, options.pop("name")), **options)


def config_of(method: str, strength: float) -> dict[str, Any]:
    """What ``rlx.build`` takes."""
    return {"name": method, {"dpo": "beta", "ipo": "tau"}[method]: strength}


def optimal_margin(method: str, alpha: np.ndarray, strength: float) -> np.ndarray:
    """Log-ratio over the reference that minimises the loss when a share ``alpha`` of annotators prefers the first.

    Theorem 3.1 for dpo; for ipo the minimiser of its mean of two squares.

    >>> print(optimal_margin("ipo", np.array(0.75), 0.5))
    0.5
    """
    return (np.log(alpha) - np.log1p(-alpha)) / strength if method == "dpo" else (alpha - 0.5) / strength


def idealised_accuracy(method: str, alpha: np.ndarray, reference: np.ndarray, strength: float) -> float:
    """Corollary 3.3, R*: ranking accuracy of the policy that minimises the loss; ``reference [N, 2]``."""
    return float(np.mean(reference[:, 0] - reference[:, 1] + optimal_margin(method, alpha, strength) > 0))


def pair_losses(method: str, policy: np.ndarray, reference: np.ndarray, strength: float) -> np.ndarray:
    """The library's loss of every pair, in float64."""
    with jax.enable_x64(True):
        arrays = (jnp.asarray(x, jnp.float64) for x in (policy, reference))
        return np.asarray(loss_of(method, strength)(*arrays, reduce=None))


def measure(method: str, policy: np.ndarray, reference: np.ndarray, strength: float) -> dict[str, float]:
    """What became of the ranking of pairs ``[N, 2]``, chosen first.

    ``flipped`` is the share of initially wrong pairs that end right, ``right_before`` the share of pairs right in the
    end that were so before; ``agree`` the share of pairs on which Theorem 4.1 holds (the pair is ranked right if and
    only if its loss is at most that of a margin ``log ref(l)/ref(w)``), ``agree_inside`` the same where neither margin
    is beyond the target of ipo.
    """
    policy, reference = np.asarray(policy, np.float64), np.asarray(reference, np.float64)
    before, after = reference[:, 0] > reference[:, 1], policy[:, 0] > policy[:, 1]
    needed, margin = reference[:, 1] - reference[:, 0], (policy - reference) @ [1.0, -1.0]
    losses = pair_losses(method, policy, reference, strength)
    threshold = pair_losses(method, np.stack([needed, np.zeros_like(needed)], -1), np.zeros_like(policy), strength)
    known = np.abs(losses - threshold) >= MARGIN
    agree = (losses <= threshold) == after
    target = 1 / (2 * strength) if method == "ipo" else np.inf
    inside = known & (np.maximum(needed, margin) <= target)
    return {
        "loss": float(losses.mean()),
        "reward_accuracy": float(np.mean((1 + np.sign(margin)) / 2)),  # a tie, as at the reference, is half right
        "ranking_accuracy": float(after.mean()),
        "right_right": float(np.mean(before & after)),
        "right_wrong": float(np.mean(before & ~after)),
        "wrong_right": float(np.mean(~before & after)),
        "wrong_wrong": float(np.mean(~before & ~after)),
        "flipped": share(after, ~before),
        "right_before": share(before, after),
        "agree": share(agree, known),
        "agree_inside": share(agree, inside),
    }


def lags(text: str, rows: Iterable[claims.Row], cell: claims.Cell) -> claims.Claim:
    """The claim that in a cell the reward accuracy exceeds the ranking accuracy, paired by seed."""
    kinds = ("reward", "ranking")
    long = [{**row, "kind": kind, "accuracy": row.get(f"{kind}_accuracy")} for row in rows for kind in kinds]
    return claims.greater(text, long, "accuracy", *({**cell, "kind": kind} for kind in kinds))


def share(what: np.ndarray, among: np.ndarray) -> float:
    """Share of ``what`` among the selected; 1 of nothing.

    >>> share(np.array([True, False]), np.array([True, True]))
    0.5
    """
    return float(np.mean(what, where=among)) if among.any() else 1.0
