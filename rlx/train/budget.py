"""Knapsack RL (arXiv:2509.25849): the rollouts of a step go to the prompts where they are likely to teach something.

A step has as many rollouts as ever, P prompts times the group. How often each prompt was answered rightly when it was
last drawn stands in the train state; a prompt that was never drawn gets a plain group, and
:func:`rlx.policy.rollouts.knapsack_budget_allocation` deals the rest out among the others. What no prompt has a use for
goes, as in the paper, to prompts that were never answered rightly, one more each in turn, and then to whatever prompt
has room: the number of rows that are drawn is static.
"""

from __future__ import annotations

import numpy as np

from rlx.metrics import Largest, Mean, Metrics, Smallest
from rlx.policy.rollouts import knapsack_budget_allocation
from rlx.train.loop import HostBatch
from rlx.train.rollout_parts import BudgetSettings

UNSEEN = -1.0
"""The success rate of an example that was not drawn yet."""


def blank(examples: int) -> np.ndarray:
    """Success rates ``[examples]`` of a training set of which nothing was drawn yet."""
    return np.full(examples, UNSEEN, np.float32)


def rates_of(held: np.ndarray, batch: HostBatch) -> np.ndarray:
    """Success rates ``[P]`` of the prompts of a batch; rows that fill it up were never drawn."""
    real = batch["candidate_where"][:, 0]
    return np.where(real, held[np.minimum(batch["index"], len(held) - 1)], UNSEEN)


def allocate(rates: np.ndarray, group: int, settings: BudgetSettings) -> np.ndarray:
    """Responses ``[P]`` to each prompt, P times the group altogether.

    >>> settings = BudgetSettings(n_low=1, n_up=8)
    >>> allocate(np.array([UNSEEN, 1.0, 0.5, 0.0]), 4, settings).tolist()
    [4, 1, 8, 3]
    """
    assert settings.n_up is not None  # a checked block has it
    shares, known = np.full(len(rates), group), np.flatnonzero(rates >= 0)
    if not len(known):
        return shares
    bounds = {"n_low": settings.n_low, "n_up": settings.n_up}
    found = knapsack_budget_allocation(rates[known], budget=group * len(known), **bounds)
    shares[known] = found.allocation
    left = group * len(rates) - int(shares.sum())
    for takers in (np.flatnonzero(rates == 0), known):
        left = _deal(shares, takers, left, settings.n_up)
    return shares


def _deal(shares: np.ndarray, takers: np.ndarray, left: int, most: int) -> int:
    """Gives one more to each of the takers in turn while there is room; returns what is left."""
    while left and (shares[takers] < most).any():
        some = takers[shares[takers] < most][:left]
        shares[some] += 1
        left -= len(some)
    return left


def remember(held: np.ndarray, batch: HostBatch) -> np.ndarray:
    """The success rates after a batch of responses."""
    real = batch["candidate_where"]
    counts, right = real.sum(-1), np.sum(batch["correct"], -1, where=real)
    some = counts > 0
    found = held.copy()
    found[batch["index"][some]] = (right[some] / counts[some]).astype(found.dtype)
    return found


def measured(rates: np.ndarray, batch: HostBatch) -> Metrics:
    """What is reported: the largest and the smallest share; how many prompts were known, how many taught something.

    ``prompts_effective`` counts the prompts whose responses differ in reward: the others have no advantage in a group.
    """
    real, rewards = batch["candidate_where"], batch["rewards"]
    counts = real.sum(-1)
    some = counts > 0
    high, low = (np.where(real, rewards, sign * np.inf) for sign in (-1, 1))
    prompts = np.float64(some.sum())
    return {
        "share_largest": Largest(np.float64(counts[some].max(initial=0))),
        "share_smallest": Smallest(np.float64(counts[some].min(initial=real.shape[1]))),
        "prompts_known": Mean(np.float64((rates[some] >= 0).sum()), prompts),
        "prompts_effective": Mean(np.float64((high.max(-1) > low.min(-1))[some].sum()), prompts),
    }
