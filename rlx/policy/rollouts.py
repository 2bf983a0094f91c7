"""What is sampled and how often: scores and budgets of prompts, carry-over between batches, labels by vote.

Host side, between steps: NumPy and lists, except for :func:`vas_score`, a function of arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlx import numerics
from rlx.errors import UserError
from rlx.evaluation.voting import most_frequent
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes


def vas_score(
    correct: Array, diversity: Array, *, alpha: float = 0.8, beta: float = 0.2, where: Array | None = None
) -> Array:
    r"""MMR1's score of a prompt: how uncertain its outcome is, and how different its responses are.

    .. math:: \mathrm{VPS} = \alpha\,p\,(1 - p) + \beta\,D

    Args:
      correct: ``[..., K]`` verdicts, whose mean is the pass rate p.
      diversity: ``[...]`` D, larger for more different responses (not a self-BLEU, which is a similarity).
      alpha: weight of the variance of the outcome.
      beta: weight of the diversity.
      where: ``[..., K]`` real responses.

    Returns:
      ``[...]``; prompts are drawn in proportion (:func:`vas_batch`).

    Raises:
      UserError: the shapes disagree.

    >>> print(f"{vas_score(jnp.array([1.0, 0.0]), jnp.array(0.5)):.2f}")
    0.30

    References:
      Leng et al., *MMR1: Enhancing Multimodal Reasoning with Variance-Aware Sampling and Open Resources*,
      arXiv:2509.21268.
    """
    check_shapes(correct=correct, where=where)
    check_shapes(diversity=diversity, **{"correct without its last axis": correct[..., 0]})
    rate = numerics.mean(constant(correct, where), -1, where=where)
    return alpha * rate * (1 - rate) + beta * constant(diversity)


class Draw(NamedTuple):
    """Prompts of a batch: ``weighted`` by their score, with replacement, and ``uniform`` without, as indices."""

    weighted: np.ndarray
    uniform: np.ndarray


def vas_batch(scores: Any, *, batch_size: int, mixture: float = 0.5, seed: int | Sequence[int] = 0) -> Draw:
    """MMR1's batch: ``int(mixture * batch_size)`` prompts in proportion to their scores, the rest uniformly.

    Args:
      scores: ``[N]`` scores, at least 0 (:func:`vas_score`).
      batch_size: how many prompts.
      mixture: lambda, the share drawn by score.
      seed: of the draw; ``(seed, step)`` makes every step its own.

    Raises:
      UserError: a score is negative, all are 0, ``mixture`` is outside [0, 1], or too few prompts for the uniform part.

    >>> draw = vas_batch([0.0, 1.0, 0.0], batch_size=4, mixture=0.5)
    >>> print(draw.weighted, len(draw.uniform))
    [1 1] 2

    References:
      Leng et al., *MMR1*, arXiv:2509.21268.
    """
    scores = np.asarray(scores, np.float64)
    if not 0 <= mixture <= 1:
        raise UserError(f"vas_batch: mixture is a share and must be in [0, 1], got {mixture}.")
    if not (scores >= 0).all() or not scores.sum() > 0:
        raise UserError("vas_batch: scores are weights: at least 0, and not all of them 0.")
    count, generator = int(mixture * batch_size), np.random.default_rng(seed)
    if batch_size - count > scores.size:
        raise UserError(f"vas_batch: {batch_size - count} different prompts are wanted of {scores.size}.")
    weighted = generator.choice(scores.size, count, p=scores / scores.sum())
    return Draw(weighted, generator.permutation(scores.size)[: batch_size - count])


class Budget(NamedTuple):
    """Rollouts of every prompt ``[M]``, what they are worth together, and the worth of N = n_low.. for each prompt."""

    allocation: np.ndarray
    total_value: float
    values: np.ndarray


def knapsack_budget_allocation(success_rates: Any, *, budget: int, n_low: int = 2, n_up: int = 128) -> Budget:
    r"""Knapsack RL: rollouts go where they are most likely to give a gradient that is worth something.

    .. math:: \max \sum_i V(N_i, p_i),\quad V(N, p) = (1 - p^N - (1 - p)^N)\,p\,(1 - p)^2,\quad
       \sum_i N_i \le C,\; n_{low} \le N_i \le n_{up}

    V is concave in N, so that giving the rollouts out one by one to the largest gain is optimal. A prompt that is
    always solved, or never, has no value and gets n_low; what no prompt has a use for is left over.

    Args:
      success_rates: ``[M]`` p, estimated when the prompt was last sampled.
      budget: C, rollouts of the batch.
      n_low: fewest rollouts of a prompt.
      n_up: most rollouts of a prompt.

    Raises:
      UserError: a rate is outside [0, 1], the bounds are not in order, or the budget is below ``n_low`` each.

    >>> knapsack_budget_allocation([0.5, 1.0, 0.2], budget=16).allocation.tolist()
    [5, 2, 9]

    References:
      Li et al., *Knapsack RL: Unlocking Exploration of LLMs via Optimizing Budget Allocation*, arXiv:2509.25849.
    """
    rates = np.asarray(success_rates, np.float64)
    if rates.ndim != 1 or not ((rates >= 0) & (rates <= 1)).all():
        raise UserError("knapsack_budget_allocation: success_rates is one number in [0, 1] for each prompt.")
    if not 1 <= n_low <= n_up:
        raise UserError(f"knapsack_budget_allocation: wants 1 <= n_low <= n_up, got {n_low} and {n_up}.")
    spare = budget - n_low * rates.size
    if spare < 0:
        wanted = f"{rates.size} prompts with {n_low} each"
        raise UserError(f"knapsack_budget_allocation: {wanted} exceed a budget of {budget}.")
    p, n = rates[:, None], np.arange(n_low, n_up + 1)
    values = (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2
    # gains fall with N; where rounding says otherwise they are made to, so that what is taken is a prefix of a row
    gains = np.minimum.accumulate(np.diff(values), axis=1)
    best = np.argsort(-gains, axis=None, kind="stable")[:spare]
    rows = best[gains.ravel()[best] > 0] // max(gains.shape[1], 1)
    allocation = n_low + np.bincount(rows, minlength=rates.size)
    return Budget(allocation, float(values[np.arange(rates.size), allocation - n_low].sum()), values)


class Carried(NamedTuple):
    """Groups that wait to be trained on: ``pending`` in the batch that is filled, ``recovered`` from one too full."""

    pending: tuple[Any, ...] = ()
    recovered: tuple[Any, ...] = ()


def recent_sample_recovery(
    carried: Carried, groups: Sequence[Any], correct_counts: Sequence[int], *, batch_size: int, group_size: int
) -> tuple[tuple[Any, ...], Carried]:
    """Dynamic sampling that carries over: groups beyond a full batch start the next one.

    The batch takes what was recovered, then the new groups of which some responses are right and some wrong. With fewer
    than ``batch_size`` it waits for the next round of sampling; with more, the surplus is recovered in the next round.
    First in, first out; at most one batch per round. (Recovered groups come from an older policy: no importance weights
    correct for it in the paper.)

    Args:
      carried: what the last round left; ``Carried()`` at the start.
      groups: the groups sampled in this round, anything.
      correct_counts: right responses in each.
      batch_size: N groups.
      group_size: G responses in a group.

    Returns:
      The batch (empty: no update in this round), and what is carried over.

    Raises:
      UserError: the counts are not one for each group, or not within 0..G.

    >>> recent_sample_recovery(Carried(("a",)), ["b", "c", "d"], [4, 1, 2], batch_size=2, group_size=4)
    (('a', 'c'), Carried(pending=(), recovered=('d',)))

    References:
      Netease Youdao, *Confucius3-Math*, arXiv:2506.18330, Algorithm 1.
    """
    if len(groups) != len(correct_counts):
        raise UserError(f"recent_sample_recovery: {len(groups)} groups, but {len(correct_counts)} counts.")
    if not all(0 <= count <= group_size for count in correct_counts):
        raise UserError(f"recent_sample_recovery: counts are within 0 and group_size={group_size}.")
    useful = (group for group, count in zip(groups, correct_counts, strict=True) if 0 < count < group_size)
    pool = (*carried.pending, *carried.recovered, *useful)
    if len(pool) < batch_size:
        return (), Carried(pool)
    return pool[:batch_size], Carried((), pool[batch_size:])


class Vote(NamedTuple):
    """Pseudo-label of a prompt, the share of the votes for it, and the reward of every response that is trained on."""

    label: Any
    ratio: float
    rewards: np.ndarray


def ttrl_majority_reward(
    answers: Sequence[Any],
    *,
    num_samples: int | None = None,
    equivalent: Callable[[Any, Any], bool] | None = None,
    where: Any = None,
) -> Vote:
    """TTRL: without labels, the answer most of the responses give is the label, and its responses are right.

    Args:
      answers: ``[n]`` the final answers of the responses to a prompt: numbers, strings, anything hashable.
      num_samples: the first so many are trained on, all of them vote; None: all.
      equivalent: ``(answer, label) -> bool``, a verifier: answers written differently split the vote, but still are
        right. None: equality.
      where: ``[n]`` the answers that exist.

    Returns:
      ``Vote(label, ratio, rewards)``; of equally frequent answers the first one seen is the label.

    Raises:
      UserError: there is no answer.

    >>> ttrl_majority_reward(["4", "7", "7", "4.0", "4"], equivalent=lambda a, b: float(a) == float(b))
    Vote(label='4', ratio=0.4, rewards=array([1., 0., 0., 1., 1.]))

    References:
      Zuo et al., *TTRL: Test-Time Reinforcement Learning*, arXiv:2504.16084.
    """
    real = np.ones(len(answers), bool) if where is None else np.asarray(where, bool)
    votes = [answer for answer, exists in zip(answers, real, strict=True) if exists]
    if not votes:
        raise UserError("ttrl_majority_reward: there is no answer to vote.")
    (label,) = most_frequent(votes)
    same = equivalent or (lambda answer, other: answer == other)
    trained = list(zip(answers, real, strict=True))[:num_samples]
    rewards = np.array([float(exists and same(answer, label)) for answer, exists in trained])
    return Vote(label, votes.count(label) / len(votes), rewards)
