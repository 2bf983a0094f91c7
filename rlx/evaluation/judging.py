"""Judges that state probabilities: when to abstain, how to read them, and how far they contradict themselves."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from rlx.errors import UserError


class Selective(NamedTuple):
    """A judge that abstains.

    Attributes:
      probability: ``[n]`` mean probability of A over both orders.
      uncertainty: ``[n]`` its binary entropy, nats.
      decision: ``[n]`` True for A.
      threshold: decide where the uncertainty is at most this; -inf: never.
      accepted: ``[n]`` where the judge decides, among the calibration items.
    """

    probability: np.ndarray
    uncertainty: np.ndarray
    decision: np.ndarray
    threshold: float
    accepted: np.ndarray


def scope_selective_judging(
    p_forward: Any, p_reverse: Any, errors: Any, *, alpha: float = 0.1, slack: float = 1.0, where: Any = None
) -> Selective:
    r"""A threshold on a judge's uncertainty that keeps the rate of wrong verdicts at most alpha (SCOPE).

    .. math:: \lambda = \sup\Big\{ l : \sum_i 1[s_i \le l](\text{err}_i - \alpha) \le -1 \Big\},\quad
              s = H\Big(\frac{p_{fwd} + p_{rev}}{2}\Big)

    The rate is the marginal false discovery rate of further items that are exchangeable with these. Feasibility is not
    monotone in l: all scores are tried. A set with fewer than 1/alpha right verdicts always abstains.

    Args:
      p_forward: ``[n]`` probability of A, shown first.
      p_reverse: ``[n]`` probability of the same A, shown second.
      errors: ``[n]`` 1 where the verdict of a calibration item is wrong.
      alpha: rate of errors among the verdicts.
      slack: what the sum must stay below; 1 in the source, 1 - alpha in general conformal risk control.
      where: ``[n]`` calibration items that exist.

    Raises:
      UserError: the shapes differ, or a probability is outside [0, 1].

    >>> found = scope_selective_judging([0.99] * 15 + [0.6], [0.97] * 15 + [0.5], [0] * 15 + [1])
    >>> print(f"{found.threshold:.3f}", found.accepted.sum())
    0.098 15

    References:
      *SCOPE: Selective Conformal Optimized Pairwise LLM Judging*, arXiv:2602.13110.
    """
    probability, uncertainty = bidirectional_entropy(p_forward, p_reverse)
    wrong = np.asarray(errors, np.float64)
    where = np.ones(probability.shape, bool) if where is None else np.asarray(where, bool)
    if wrong.shape != probability.shape or where.shape != wrong.shape or wrong.ndim != 1:
        raise UserError(f"scope_selective_judging needs vectors of one length: {probability.shape}, {wrong.shape}.")
    threshold = selective_threshold(uncertainty[where], wrong[where], alpha=alpha, slack=slack)
    return Selective(probability, uncertainty, probability >= 0.5, threshold, (uncertainty <= threshold) & where)


def bidirectional_entropy(p_forward: Any, p_reverse: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability of A over both orders, and its binary entropy in nats: the uncertainty of a new item, too.

    >>> print(*bidirectional_entropy([0.5, 1.0], [0.5, 1.0]))
    [0.5 1. ] [0.69314718 0. ]
    """
    orders = [np.asarray(p, np.float64) for p in (p_forward, p_reverse)]
    if orders[0].shape != orders[1].shape:
        raise UserError(f"both orders need the same items, not {orders[0].shape} and {orders[1].shape}.")
    mean = (orders[0] + orders[1]) / 2
    if not ((mean >= 0) & (mean <= 1)).all():
        raise UserError("a judge's probabilities must lie in [0, 1].")
    parts = [x * np.log(np.where(x > 0, x, 1)) for x in (mean, 1 - mean)]
    return mean, 0.0 - (parts[0] + parts[1])  # of a certain judge 0, not -0


def selective_threshold(scores: np.ndarray, errors: np.ndarray, *, alpha: float, slack: float = 1.0) -> float:
    """The largest score l at which the sum over ``scores <= l`` of ``errors - alpha`` is at most ``-slack``, or -inf.

    >>> selective_threshold(np.array([0.1, 0.2, 0.3]), np.array([0, 0, 1]), alpha=0.5)
    0.2
    """
    if not 0 < alpha < 1:
        raise UserError(f"alpha must lie between 0 and 1, not {alpha}.")
    levels, which = np.unique(scores, return_inverse=True)
    counts = np.bincount(which, minlength=len(levels)).cumsum()
    wrong = np.bincount(which, errors, minlength=len(levels)).cumsum()
    feasible = levels[wrong - alpha * counts <= -slack + 1e-12 * counts]
    return float(feasible.max()) if len(feasible) else -math.inf


def trustjudge(probabilities: Any, *, temperature: float = 0.2, epsilon: float = 1e-8, where: Any = None) -> np.ndarray:
    r"""A judge's score that is sensitive to its whole distribution over the scores 1..S.

    .. math:: \sum_s s \cdot \text{softmax}_s\big(\text{logit}(p_s) / T\big),\quad
              \text{logit}(p) = \log\frac{p + \epsilon}{1 - p + \epsilon}

    Args:
      probabilities: ``[..., S]`` of the scores 1 to S.
      temperature: T.
      epsilon: keeps the logit finite.
      where: ``[..., S]`` the scores that the judge names; 0 where it names none. The official code also leaves out
        probabilities of 0 and 1, and so scores a judge that is certain with 0.

    >>> print(trustjudge([[0.1, 0.1, 0.8], [0.0, 0.0, 1.0]]))
    [2.99... 3. ]

    References:
      *TrustJudge: Inconsistencies of LLM-as-a-Judge and How to Alleviate Them*, arXiv:2509.21117.
    """
    p = np.asarray(probabilities, np.float64)
    where = np.ones(p.shape, bool) if where is None else np.asarray(where, bool)
    p = np.where(where, p, 0.5)
    logits = np.where(where, np.log((p + epsilon) / (1 - p + epsilon)) / temperature, -np.inf)
    highest = logits.max(-1, keepdims=True)
    weights = np.where(where, np.exp(logits - np.where(np.isfinite(highest), highest, 0)), 0)
    total = weights.sum(-1)
    return weights @ np.arange(1.0, p.shape[-1] + 1) / np.where(total > 0, total, 1)


class Verdict(NamedTuple):
    """Of pairwise comparisons: ``[...]`` 1 if A wins, -1 if B, 0 for a tie; and ``[..., 3]`` the weights of A, B, C."""

    sign: np.ndarray
    weights: np.ndarray


def trustjudge_verdict(first: Any, second: Any, *, tolerance: float = 0.05) -> Verdict:
    """The verdict of a judge asked in both orders: the outcome with the larger sum of probabilities.

    Args:
      first: ``[..., 3]`` probabilities of A, B and C (a tie), A shown first.
      second: ``[..., 3]`` those of the labels when B is shown first: label A then means B.
      tolerance: the verdict is a tie where half the gap between the two largest sums is smaller.

    >>> print(trustjudge_verdict([0.9, 0.05, 0.05], [0.2, 0.7, 0.1]).sign)
    1

    References:
      *TrustJudge*, arXiv:2509.21117.
    """
    weights = np.asarray(first, np.float64) + np.asarray(second, np.float64)[..., [1, 0, 2]]
    ordered = np.sort(weights, -1)
    close = (ordered[..., -1] - ordered[..., -2]) / 2 < tolerance
    return Verdict(np.where(close, 0, np.array([1, -1, 0])[weights.argmax(-1)]), weights)


def perplexity_verdict(first: Any, second: Any, perplexities: Any, *, tolerance: float = 0.05) -> Verdict:
    """The verdict of the order in which the judge's answer has the lower perplexity; a tie if they hardly differ.

    Args:
      first: ``[..., 3]`` probabilities of A, B and C, A shown first.
      second: ``[..., 3]`` those of the labels when B is shown first.
      perplexities: ``[..., 2]`` of the judge's answer in the two orders.
      tolerance: the least difference of perplexities that counts.

    >>> print(perplexity_verdict([0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [1.1, 1.5]).sign)
    1
    """
    orders = np.stack([np.asarray(first, np.float64), np.asarray(second, np.float64)[..., [1, 0, 2]]], -2)
    perplexities = np.asarray(perplexities, np.float64)
    trusted = np.take_along_axis(orders, perplexities.argmin(-1)[..., None, None], -2)[..., 0, :]
    differ = np.abs(perplexities[..., 0] - perplexities[..., 1]) > tolerance
    return Verdict(np.where(differ, np.array([1, -1, 0])[trusted.argmax(-1)], 0), trusted)


def conflict_ratio(scores: Any, verdicts: Any, *, tolerance: float = 0.0) -> float:
    """Share of pairs whose verdict contradicts the order of the scores of the two responses.

    Args:
      scores: ``[n]`` of single responses.
      verdicts: ``[n, n]`` 1 if i beats j, -1 if j does, 0 for a tie; only i < j is read.
      tolerance: scores that differ by no more count as equal.

    >>> conflict_ratio([5, 3, 3], [[0, 1, -1], [0, 0, 0], [0, 0, 0]])
    0.333...
    """
    i, j = np.triu_indices(len(scores), 1)
    if not len(i):
        raise UserError("conflict_ratio needs at least two responses.")
    gap = np.asarray(scores, np.float64)[i] - np.asarray(scores, np.float64)[j]
    order = np.where(np.abs(gap) <= tolerance, 0, np.sign(gap))
    return float(np.mean(order != np.asarray(verdicts)[i, j]))


class NonTransitivity(NamedTuple):
    """Share of the subsets with a contradiction: a circle of wins, or one that a tie makes."""

    total: float
    circle: float
    equal: float


def non_transitivity_ratio(verdicts: Any, *, k: int = 3) -> NonTransitivity:
    """Share of the k-subsets of responses in which three verdicts contradict each other.

    Args:
      verdicts: ``[n, n]`` 1 if i beats j, -1 if j does, 0 for a tie; only i < j is read.
      k: size of the subsets. A subset with both kinds of contradiction counts as a circle.

    >>> non_transitivity_ratio([[0, 1, -1], [0, 0, 1], [0, 0, 0]])
    NonTransitivity(total=1.0, circle=1.0, equal=0.0)
    """
    upper = np.triu(np.asarray(verdicts), 1)
    sign = upper - upper.T
    if not 3 <= k <= len(sign):
        raise UserError(f"non_transitivity_ratio needs 3 <= k <= {len(sign)} responses, not k = {k}.")
    broken = {
        triple: "equal" if 0 in verdict else "circle"
        for triple in itertools.combinations(range(len(sign)), 3)
        if not consistent(*(verdict := tuple(int(sign[a, b]) for a, b in ((triple[:2]), (triple[1:]), (triple[::2])))))
    }
    kinds = [
        {broken[triple] for triple in itertools.combinations(subset, 3) if triple in broken}
        for subset in itertools.combinations(range(len(sign)), k)
    ]
    circle, total = (sum(test(kind) for kind in kinds) / len(kinds) for test in (lambda kind: "circle" in kind, bool))
    return NonTransitivity(total, circle, total - circle)


def consistent(ij: int, jk: int, ik: int) -> bool:
    """Whether three verdicts (1, 0 or -1) can all come from one order: equal signs force the third, 0 passes it on.

    >>> consistent(1, 1, 1), consistent(1, 0, 1), consistent(1, -1, 0), consistent(0, 0, 1)
    (True, True, True, False)
    """
    return ij == -jk != 0 or ik == (ij or jk)
