"""What k samples of a problem are worth: pass@k, best-of-k, majority-of-k, exact from n >= k samples.

Samples lie on the last axis; ``where`` leaves out those that a problem does not have.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlx.evaluation.checks import Estimate, enough, over_problems, samples


def pass_at_k(correct: Any, *, k: int, where: Any = None, confidence: float = 0.95) -> Estimate:
    r"""Probability that one of k samples is correct, without bias from n samples of which c are.

    .. math:: 1 - \binom{n-c}{k} \Big/ \binom{n}{k}

    Args:
      correct: ``[..., n]`` whether a sample is correct.
      k: how many samples may be tried.
      where: ``[..., n]`` the samples that exist.
      confidence: of the interval over problems.

    Raises:
      UserError: a problem has fewer than k samples.

    >>> found = pass_at_k([[1, 0, 0, 0], [0, 0, 0, 0]], k=2)
    >>> print(found.per_problem, found.mean)
    [0.5 0. ] 0.25

    References:
      Chen et al., *Evaluating Large Language Models Trained on Code*, arXiv:2107.03374.
    """
    correct, where = samples("pass_at_k", where, correct=correct)
    counts = where.sum(-1)
    enough("pass_at_k", counts, k)
    return over_problems(any_correct(counts, (correct.astype(bool) & where).sum(-1), k=k), confidence)


def any_correct(num_samples: Any, num_correct: Any, *, k: int) -> np.ndarray:
    r"""Pass@k from counts, :math:`1 - \prod_{i=n-c+1}^n (1 - k/i)`: 1 where fewer than k samples are wrong.

    >>> print(any_correct([4, 10], [1, 9], k=2))
    [0.5 1. ]
    """
    n, c = np.broadcast_arrays(num_samples, num_correct)
    i = np.arange(1, n.max(initial=0) + 1)
    taken = (i > (n - c)[..., None]) & (i <= n[..., None])
    return np.where(n - c < k, 1.0, 1 - np.where(taken, 1 - k / i, 1.0).prod(-1))


def best_of_n(rewards: Any, correct: Any, *, k: int, where: Any = None, confidence: float = 0.95) -> Estimate:
    r"""Expected correctness of the sample with the highest reward among k, over all k-subsets of the n samples.

    .. math:: \sum_i \binom{\text{rank}_i}{k-1} \Big/ \binom{n}{k} \cdot \text{correct}_i

    where rank counts the samples with a smaller reward. Equal rewards share the place they would win together.

    Args:
      rewards: ``[..., n]`` what a reward model says of a sample.
      correct: ``[..., n]`` its true worth.
      k: size of the subsets.
      where: ``[..., n]`` the samples that exist.
      confidence: of the interval over problems.

    Raises:
      UserError: a problem has fewer than k samples, or a reward is NaN.

    >>> print(best_of_n([0.1, 0.5, 0.9], [1, 0, 0], k=2).mean, best_of_n([0.1, 0.5, 0.9], [0, 1, 0], k=2).mean)
    0.0 0.333...
    """
    rewards, correct, where = samples("best_of_n", where, rewards=rewards, correct=correct)
    enough("best_of_n", where.sum(-1), k)

    def value(problem: tuple[int, ...]) -> float:
        chosen = chance_to_win(rewards[problem][where[problem]], k)
        return float(chosen @ correct[problem][where[problem]].astype(np.float64))

    return over_problems(_each(value, where), confidence)


def chance_to_win(rewards: np.ndarray, k: int) -> np.ndarray:
    """Probability ``[n]`` that a sample has the highest reward in a random k-subset, ties shared equally.

    >>> print(chance_to_win(np.array([1.0, 1.0, 0.0]), 2))
    [0.5 0.5 0. ]
    """
    ordered = np.sort(rewards)
    below, up_to = (np.searchsorted(ordered, rewards, side) for side in ("left", "right"))
    draw = np.arange(k)

    def all_among(first: np.ndarray) -> np.ndarray:
        return (np.maximum(first[:, None] - draw, 0) / (len(rewards) - draw)).prod(-1)

    return (all_among(up_to) - all_among(below)) / (up_to - below)


def majority_at_k(answers: Any, correct: Any, *, k: int, where: Any = None, confidence: float = 0.95) -> Estimate:
    r"""Maj@k: expected correctness of the most frequent answer among k samples, over all k-subsets of the n.

    Exact, in time polynomial in n: the subsets are counted by how often each answer occurs. Answers that tie for the
    majority share it equally; an answer whose samples differ in correctness has their mean.

    Args:
      answers: ``[..., n]`` the answer of a sample, as a number or text.
      correct: ``[..., n]`` its true worth.
      k: size of the subsets.
      where: ``[..., n]`` the samples that exist.
      confidence: of the interval over problems.

    Raises:
      UserError: a problem has fewer than k samples.

    >>> print(majority_at_k(["a", "a", "b"], [1, 1, 0], k=1).mean, majority_at_k(["a", "a", "b"], [1, 1, 0], k=3).mean)
    0.666... 1.0
    """
    answers, correct, where = samples("majority_at_k", where, answers=answers, correct=correct)
    enough("majority_at_k", where.sum(-1), k)

    def value(problem: tuple[int, ...]) -> float:
        _, which, counts = np.unique(answers[problem][where[problem]], return_inverse=True, return_counts=True)
        worth = np.bincount(which, correct[problem][where[problem]].astype(np.float64)) / counts
        return majority_value(binomials(counts, k), worth) / float(binomials(counts.sum()[None], k)[0, k])

    return over_problems(_each(value, where), confidence)


def majority_value(weights: np.ndarray, values: np.ndarray) -> float:
    """The value of the majority answer, summed over all ways in which k votes can fall.

    A way in which answer a has j_a votes weighs the product of ``weights[a, j_a]``; answers that tie for most votes
    count with their mean.

    Args:
      weights: ``[A, k + 1]``, not negative.
      values: ``[A]``.

    >>> majority_value(np.array([[1.0, 2.0, 1.0], [1.0, 2.0, 1.0]]), np.array([1.0, 0.0])) / 6  # 2 of 4 votes
    0.5
    """
    k, total = weights.shape[1] - 1, 0.0
    for most in range(1, k + 1):
        ways = np.zeros((2, k + 1, k // most + 1))  # weight, and weight times sum of the tied values, by votes and ties
        ways[0, 0, 0] = 1
        for own, worth in zip(weights, values, strict=True):
            tied = own[most] * ways[:, : k + 1 - most, :-1]
            following = np.zeros_like(ways)
            for votes in np.flatnonzero(own[:most]):
                following[:, votes:] += own[votes] * ways[:, : k + 1 - votes]
            following[:, most:, 1:] += tied
            following[1, most:, 1:] += worth * tied[0]
            ways = following
        total += float((ways[1, k, 1:] / np.arange(1, k // most + 1)).sum())
    return total


def binomials(counts: np.ndarray, k: int) -> np.ndarray:
    """Probability ``[A, k + 1]`` of j heads in ``counts[a]`` throws of a coin with as many heads as a k-subset has.

    Within a row proportional to the ways of taking j of the samples, and of a size that floating point can hold.
    """
    drawn, n = np.arange(k + 1), np.asarray(counts)[:, None]
    heads = k / np.asarray(counts).sum()
    logs, possible = log_factorials(max(k, int(n.max()))), drawn <= n
    rest = np.where(possible, n - drawn, 0)
    choose = logs[n] - logs[drawn] - logs[rest]
    return np.where(possible, np.exp(choose) * heads**drawn * (1 - heads) ** rest, 0)


def log_factorials(n: int) -> np.ndarray:
    """``log j!`` for j = 0..n."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])


def _each(value: Any, where: np.ndarray) -> np.ndarray:
    """``value`` of the index of every problem."""
    shape = where.shape[:-1]
    return np.array([value(problem) for problem in np.ndindex(*shape)]).reshape(shape)
