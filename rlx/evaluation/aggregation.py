"""One ranking out of many: Borda, Copeland and Kemeny on the matrix of preferences, and Borda over benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlx.errors import UserError
from rlx.evaluation.checks import square

KEMENY_LIMIT = 16
"""Alternatives that the exact search over subsets takes."""


def preference_matrix(
    votes: Sequence[Sequence[int]], weights: Any = None, *, alternatives: int | None = None
) -> np.ndarray:
    """Weighted votes ``[N, N]`` that place alternative i before j.

    Args:
      votes: rankings, the best first; they may leave alternatives out, and then say nothing of them.
      weights: ``[V]`` how often a vote was cast; 1 by default.
      alternatives: N; by default the highest id + 1.

    Raises:
      UserError: a vote names an alternative twice, or one that does not exist.

    >>> preference_matrix([[1, 0], [1, 0, 2]], [2, 1])
    array([[0., 0., 1.],
           [3., 0., 1.],
           [0., 0., 0.]])
    """
    ranked = [np.asarray(vote, int) for vote in votes]
    size = max((int(vote.max(initial=-1)) for vote in ranked), default=-1) + 1 if alternatives is None else alternatives
    matrix = np.zeros((size, size))
    for i, (vote, weight) in enumerate(zip(ranked, np.ones(len(ranked)) if weights is None else weights, strict=True)):
        if len(set(vote.tolist())) != len(vote) or not ((vote >= 0) & (vote < size)).all():
            raise UserError(f"vote {i} must name each of the alternatives 0..{size - 1} at most once: {vote.tolist()}.")
        before, after = np.triu_indices(len(vote), 1)
        matrix[vote[before], vote[after]] += float(weight)
    return matrix


def borda(preferences: Any) -> np.ndarray:
    r"""Borda scores ``[N]``: a vote gives an alternative a point for every one it places behind it.

    .. math:: s_i = \sum_{j \ne i} N_{ij}

    Args:
      preferences: ``[N, N]`` votes that place i before j, from :func:`preference_matrix`.

    >>> print(borda(preference_matrix([[0, 1, 2], [1, 0, 2]])))
    [3. 3. 0.]

    References:
      Borda, *Mémoire sur les élections au scrutin*, 1781.
    """
    return _against_others("borda", preferences).sum(-1)


def copeland(preferences: Any) -> np.ndarray:
    r"""Copeland scores ``[N]``: opponents beaten by majority, and half of those tied with.

    .. math:: s_i = \sum_{j \ne i} 1[N_{ij} > N_{ji}] + \tfrac12 1[N_{ij} = N_{ji}]

    Args:
      preferences: ``[N, N]`` votes that place i before j.

    >>> print(copeland(preference_matrix([[0, 1, 2], [1, 0, 2]])))
    [1.5 1.5 0. ]

    References:
      Copeland, *A Reasonable Social Welfare Function*, 1951.
    """
    votes = _against_others("copeland", preferences)
    return ((1 + np.sign(votes - votes.T)) / 2).sum(-1) - 1 / 2


class Kemeny(NamedTuple):
    """The best value of the sum, and all rankings that reach it, in lexicographic order."""

    score: float
    rankings: list[list[int]]


def kemeny(preferences: Any, *, most: int = 1000) -> Kemeny:
    r"""The Kemeny-Young rankings: they agree with the voters on most pairs.

    .. math:: \max_\pi \sum_{i<j} N_{\pi_i \pi_j}

    Exact, by dynamic programming over the :math:`2^N` sets of alternatives that may be ranked last.

    Args:
      preferences: ``[N, N]`` votes that place i before j; N at most 16.
      most: rankings to list.

    Raises:
      UserError: there are more alternatives: use :func:`rlx.soft_condorcet`.

    >>> kemeny(preference_matrix([[0, 1, 2], [0, 1, 2], [2, 0, 1]]))
    Kemeny(score=7.0, rankings=[[0, 1, 2]])

    References:
      Kemeny, *Mathematics without Numbers*, 1959.
    """
    votes = _against_others("kemeny", preferences)
    size = len(votes)
    if size > KEMENY_LIMIT:
        raise UserError(f"kemeny takes at most {KEMENY_LIMIT} alternatives, not {size}; soft_condorcet takes more.")
    first, best = _suffixes(votes)
    found: list[list[int]] = []
    for ranking in _paths(first, (1 << size) - 1):
        found.append(ranking)
        if len(found) == most:
            break
    return Kemeny(float(best[-1]), found)


def _against_others(name: str, preferences: Any) -> np.ndarray:
    """The matrix in float64, its diagonal 0: nobody is compared with itself."""
    square(name, preferences=preferences)
    votes = np.array(preferences, np.float64)
    np.fill_diagonal(votes, 0)
    return votes


def _suffixes(votes: np.ndarray) -> tuple[list[list[int]], np.ndarray]:
    """For every set of alternatives: those that may stand first in a best ranking of it, and that ranking's value."""
    size = len(votes)
    members = (np.arange(1 << size)[:, None] >> np.arange(size)) & 1
    over = members @ votes.T  # votes that place i before the members of a set
    best, first = np.zeros(1 << size), [[] for _ in range(1 << size)]
    for some in range(1, 1 << size):
        own = np.flatnonzero(members[some])
        values = over[some, own] + best[some & ~(1 << own)]
        best[some] = values.max()
        first[some] = own[values >= best[some] - 1e-9 * max(1.0, abs(best[some]))].tolist()
    return first, best


def _paths(first: list[list[int]], some: int) -> Iterator[list[int]]:
    if not some:
        yield []
    for leader in first[some]:
        for rest in _paths(first, some & ~(1 << leader)):
            yield [leader, *rest]


def rank_aggregation(
    votes: Sequence[Sequence[int]],
    weights: Any = None,
    *,
    rule: Callable[[np.ndarray], Any] = borda,
    alternatives: int | None = None,
) -> Any:
    """What a voting rule says of ranked votes.

    Args:
      votes: rankings, the best first; they may leave alternatives out.
      weights: ``[V]`` how often a vote was cast.
      rule: :func:`borda`, :func:`copeland`, :func:`kemeny`, or any function of the matrix of preferences.
      alternatives: their number; by default the highest id + 1.

    >>> rank_aggregation([[0, 1, 2], [0, 2, 1]]), rank_aggregation([[0, 1, 2], [0, 2, 1]], rule=copeland)
    (array([4., 1., 1.]), array([2. , 0.5, 0.5]))
    """
    return rule(preference_matrix(votes, weights, alternatives=alternatives))


class Aggregate(NamedTuple):
    """Systems ranked over benchmarks.

    Attributes:
      counts: ``[S]``, larger is better.
      positions: ``[S]``, 0 for the worst system.
    """

    counts: np.ndarray
    positions: np.ndarray


def two_level_borda(scores: Any, *, levels: int = 2) -> Aggregate:
    r"""Borda over instances within each task, then over tasks: systems compared where scores have no common scale.

    .. math:: \text{count} = \sum_t \text{pos}\Big( \sum_i \text{pos}(s_{ti\cdot}) \Big)

    ``pos`` is the position of a system, 0 for the worst; equal scores are ordered by index.

    Args:
      scores: ``[tasks, instances, S]``, larger is better. Tasks of unequal size: a sequence of ``[instances, S]``.
      levels: 1 adds the positions of all instances of all tasks at once.

    Raises:
      UserError: the tasks have different systems.

    >>> two_level_borda([[[0.1, 0.9], [0.2, 0.3]], [[5.0, 1.0], [5.0, 9.0]]])
    Aggregate(counts=array([0, 2]), positions=array([0, 1]))

    References:
      Colombo et al., *What are the Best Systems? New Perspectives on NLP Benchmarking*, arXiv:2202.03799.
    """
    tasks = [np.asarray(task) for task in scores]
    if levels not in (1, 2) or {task.shape[1:] for task in tasks} != {tasks[0].shape[-1:]} or tasks[0].ndim != 2:
        shapes = [task.shape for task in tasks]
        raise UserError(f"two_level_borda needs scores [instances, systems] of each task and levels 1 or 2: {shapes}.")
    within = [positions(task).sum(0) for task in tasks]
    counts = np.sum([positions(count) for count in within] if levels == 2 else within, 0)
    return Aggregate(counts, positions(counts))


def positions(scores: Any) -> np.ndarray:
    """Position of every entry along the last axis, 0 for the smallest; equal ones by index.

    >>> positions(np.array([3.0, 1.0, 2.0]))
    array([2, 0, 1])
    """
    return np.argsort(np.argsort(scores, -1, kind="stable"), -1, kind="stable")
