"""Answers put to the vote: majorities, submissions under a vote, consistency of votes, and where to sample next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlx.errors import UserError
from rlx.evaluation.sampling import log_factorials, majority_value


def most_frequent(answers: Sequence[Any], *, k: int = 1, where: Any = None) -> list[Any]:
    """The k most frequent answers, the most frequent first; of equally frequent ones that which occurred first.

    >>> most_frequent(["C", "A", "B", "A", "B"], k=2)
    ['A', 'B']
    """
    return [answer for answer, _ in Counter(_kept(answers, where)).most_common(k)]


class Submission(NamedTuple):
    """What is submitted of the answers of a problem.

    Attributes:
      submitted: at most k answers, the one with the highest reward first.
      survivors: the answers that are frequent enough, in ascending order.
      frequencies: the share of the samples that gave an answer.
    """

    submitted: list[Any]
    survivors: list[Any]
    frequencies: dict[Any, float]


def best_of_majority(
    answers: Sequence[Any], rewards: Mapping[Any, float] | Any, *, alpha: float = 0.005, k: int = 1, where: Any = None
) -> Submission:
    r"""Best-of-Majority: of the answers at least a share alpha of the samples gave, the k with the highest rewards.

    .. math:: \text{top-}k \{ r(y) : \hat\pi(y) \ge \alpha \}

    With alpha = 0 it is best-of-n over distinct answers. Where nothing is frequent enough, nothing is submitted.

    Args:
      answers: ``[N]`` the sampled answers.
      rewards: the reward of every answer: a mapping, or an array that integer answers index.
      alpha: share of the samples; the theory has 3/(4 C*), C* = 1/pi(y*), the experiments 0.003 to 0.015.
      k: how many may be submitted.
      where: ``[N]`` the samples that exist.

    >>> best_of_majority(["x", "y", "y", "z", "z"], {"x": 9.0, "y": 1.0, "z": 2.0}, alpha=0.3, k=2).submitted
    ['z', 'y']

    References:
      *Best-of-Majority: Minimax-Optimal Strategy for Pass@k Inference Scaling*, arXiv:2510.03199.
    """
    kept = _kept(answers, where)
    if not kept:
        raise UserError("best_of_majority needs at least one answer.")
    frequencies = {answer: count / len(kept) for answer, count in sorted(Counter(kept).items())}
    survivors = [answer for answer, share in frequencies.items() if share >= alpha]
    ranked = sorted(survivors, key=lambda answer: -float(rewards[answer]))
    return Submission(ranked[:k], survivors, frequencies)


class CollectiveVote(NamedTuple):
    """What several models agree on.

    Attributes:
      self_consistency: ``[M]`` the weight of a model.
      weighted_votes: ``[A]`` by answer id.
      pseudo_label: the answer with most votes, of equals the lowest id.
      rewards: ``[M, K]`` 1 where a sample has that answer.
    """

    self_consistency: np.ndarray
    weighted_votes: np.ndarray
    pseudo_label: int
    rewards: np.ndarray


def rlccf_vote(answers: Any, *, where: Any = None) -> CollectiveVote:
    r"""A vote of several models, each sample weighted with the self-consistency of its model.

    .. math:: \hat a = \arg\max_a \sum_n SC_n \sum_k 1[o_{n,k} = a],\qquad SC_n = \max_a \text{count}_n(a) / K

    The reward of a sample is whether it agrees; each model then learns from its own rewards (GRPO).

    Args:
      answers: ``[M, K]`` ids of the answers of M models, not negative.
      where: ``[M, K]`` the samples that exist.

    >>> vote = rlccf_vote([[0, 0, 0], [1, 1, 2], [1, 2, 1]])
    >>> print(vote.self_consistency, vote.pseudo_label, vote.rewards[0])
    [1.         0.66666667 0.66666667] 0 [1. 1. 1.]

    References:
      *RLCCF: Reinforcement Learning with Collective Feedback*, arXiv:2508.12338.
    """
    ids = np.asarray(answers)
    where = np.ones(ids.shape, bool) if where is None else np.asarray(where, bool)
    if ids.ndim != 2 or ids.shape != where.shape or not where.any(-1).all() or (ids[where] < 0).any():
        raise UserError(f"rlccf_vote needs ids [models, samples] >= 0, a sample of every model, not {ids.shape}.")
    options = np.arange(ids.max(where=where, initial=0) + 1)
    counts = ((ids[..., None] == options) & where[..., None]).sum(1)
    consistency = counts.max(-1) / where.sum(-1)
    votes = (consistency[:, None] * counts).sum(0)
    label = int(np.argmax(votes >= votes.max() * (1 - 1e-12)))  # votes that are equal but for rounding tie
    return CollectiveVote(consistency, votes, label, ((ids == label) & where).astype(np.float64))


def self_consistency_rate(probabilities: Any, *, budget: int) -> float:
    r"""Probability that the majority of a budget of samples is the answer that an unlimited budget would give.

    .. math:: SCR(B) = P\Big(\text{majority of } B \text{ draws} = \arg\max_a \theta_a\Big)

    Exact; ties share the probability equally, as ties broken by first occurrence do on average.

    Args:
      probabilities: ``[A]`` of the answers, summing to 1; in practice the shares of a large pool of samples.
      budget: number of samples.

    >>> print(f"{self_consistency_rate([0.6, 0.4], budget=1):.2f} {self_consistency_rate([0.6, 0.4], budget=3):.3f}")
    0.60 0.648

    References:
      *PETS: Principled Trajectory Allocation for Self-Consistency*, arXiv:2602.16745.
    """
    shares = np.asarray(probabilities, np.float64)
    if shares.ndim != 1 or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6 or budget < 1:
        raise UserError(f"self_consistency_rate needs probabilities that sum to 1 and budget >= 1, not {shares.sum()}.")
    drawn, logs = np.arange(budget + 1), log_factorials(budget)
    expected = budget * shares[:, None]  # Poisson votes, which given their total are multinomial
    weights = np.exp(-expected - logs) * expected**drawn
    total = np.exp(budget * np.log(budget) - budget - logs[budget])
    return float(majority_value(weights, np.eye(len(shares))[np.argmax(shares)]) / total)


class Allocation(NamedTuple):
    """Where the samples went.

    Attributes:
      counts: ``[Q, A]`` how often question q got answer a.
      order: ``[budget]`` the questions in the order in which they were sampled.
    """

    counts: np.ndarray
    order: np.ndarray


def okg_allocate(
    sample: Callable[[int], int],
    *,
    questions: int,
    answers: int,
    budget: int,
    pseudo_count: float = 1.0,
    draws: int = 500,
    prior: float = 1.0,
    seed: int = 0,
) -> Allocation:
    r"""Optimistic knowledge gradient: samples next where one more answer may raise the certainty of the majority most.

    .. math:: q^* = \arg\max_q \max_a \big( h(\alpha_q + c\,e_a) - h(\alpha_q) \big),\quad
              h(\alpha) = \max_a P_{\theta \sim \text{Dir}(\alpha)}(a = \arg\max \theta)

    Args:
      sample: question -> id of the answer of a new sample.
      questions: their number.
      answers: number of possible answers.
      budget: samples in all.
      pseudo_count: c, what an answer adds to the posterior.
      draws: Monte Carlo draws for a probability h.
      prior: Dirichlet parameter of every answer before any sample (our choice: 1).
      seed: of the draws.

    >>> flip = np.random.default_rng(0)
    >>> found = okg_allocate(lambda question: 0 if question else flip.integers(2), questions=2, answers=2, budget=20)
    >>> bool(found.counts[0].sum() > found.counts[1].sum())  # more goes to the question that is undecided
    True

    References:
      *PETS: Principled Trajectory Allocation for Self-Consistency*, arXiv:2602.16745.
    """
    rng, counts, order = np.random.default_rng(seed), np.zeros((questions, answers), int), np.zeros(budget, int)

    def gain(own: np.ndarray) -> float:
        steps = pseudo_count * np.concatenate([np.zeros((1, answers)), np.eye(answers)])
        best = rng.standard_gamma(prior + pseudo_count * own + steps[:, None], (answers + 1, draws, answers)).argmax(-1)
        certain = (best[..., None] == np.arange(answers)).mean(1).max(-1)
        return float(certain[1:].max() - certain[0])

    gains = np.array([gain(own) for own in counts])
    for t in range(budget):
        order[t] = question = int(np.argmax(gains))
        counts[question, sample(question)] += 1
        gains[question] = gain(counts[question])
    return Allocation(counts, order)


def _kept(answers: Sequence[Any], where: Any) -> list[Any]:
    """The answers that exist, as Python objects."""
    listed = np.asarray(answers).tolist()
    return listed if where is None else [a for a, real in zip(listed, np.asarray(where, bool), strict=True) if real]
