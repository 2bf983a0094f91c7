"""Tournaments of the responses of a group under a pairwise judge: ranks that become rewards (ArenaRL).

A judge is called with two members of the group, the first shown first, and returns the score of each. A scheme decides
who meets whom and returns a reward in [0, 1] for every member.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, Protocol

import numpy as np

from rlx.errors import UserError

Judge = Callable[[int, int], tuple[float, float]]


class Scheme(Protocol):
    """Plays a tournament of ``group`` >= 2 members and returns their rewards."""

    def __call__(self, judge: Judge, group: int, rng: np.random.Generator) -> np.ndarray: ...


def anchor(judge: Judge, group: int, rng: np.random.Generator) -> np.ndarray:
    """Everybody against member 0, who is scored by the mean of its scores: G - 1 calls.

    >>> anchor(lambda i, j: (i, j), 3, np.random.default_rng(0))
    array([0. , 0.5, 1. ])
    """
    return rank_rewards(_against_anchor(judge, group))


def round_robin(judge: Judge, group: int, rng: np.random.Generator) -> np.ndarray:
    """Everybody against everybody, the lower index shown first; a win is 1, a tie 1/2: G (G - 1) / 2 calls.

    >>> round_robin(lambda i, j: (i, j), 3, np.random.default_rng(0))
    array([0. , 0.5, 1. ])
    """
    points = np.zeros(group)
    for i in range(group):
        for j in range(i + 1, group):
            _score(points, i, j, judge)
    return rank_rewards(points)


def single_elimination(judge: Judge, group: int, rng: np.random.Generator) -> np.ndarray:
    """A seeded bracket: who loses is out; about 2 G calls.

    Seeds come from everybody against member 0. The bracket is that of the next power of two without its empty slots,
    so with byes seeds need not be kept apart. The first of a pair goes on after a tie. The champion comes first, then
    the losers of later rounds before those of earlier ones, within a round by the mean of all scores they ever had.

    >>> single_elimination(lambda i, j: (i, j), 4, np.random.default_rng(0))
    array([0. , 0.33333333, 0.66666667, 1. ])
    """
    scores = [[float(score)] for score in _against_anchor(judge, group)]
    seeds = sorted(range(group), key=lambda player: -scores[player][0])
    left = [seeds[place] for place in bracket(group) if place < group]
    rounds: list[list[int]] = []
    while len(left) > 1:
        byes = left[len(left) - len(left) % 2 :]
        winners, losers = _play(left[: len(left) - len(byes)], judge, scores)
        left = byes + winners
        rounds.append(losers)
    return elimination_rewards(left, rounds, scores)


def double_elimination(judge: Judge, group: int, rng: np.random.Generator) -> np.ndarray:
    """Random pairings; who loses twice is out, and the winners of both brackets meet in a final.

    >>> sorted(double_elimination(lambda i, j: (i, j), 4, np.random.default_rng(0)).tolist())
    [0.0, 0.333..., 0.666..., 1.0]
    """
    scores: list[list[float]] = [[] for _ in range(group)]

    def play_round(players: Sequence[int]) -> tuple[list[int], list[int]]:
        order = [players[i] for i in rng.permutation(len(players))]
        byes = order[len(order) - len(order) % 2 :]
        winners, losers = _play(order[: len(order) - len(byes)], judge, scores)
        return byes + winners, losers

    unbeaten, beaten, out = list(range(group)), [], []
    while len(unbeaten) > 1 or len(beaten) > 1:
        dropped: list[int] = []
        if len(unbeaten) > 1:
            unbeaten, dropped = play_round(unbeaten)
        beaten = beaten + dropped
        if len(beaten) > 1:
            beaten, losers = play_round(beaten)
            out.append(losers)
    champion, second = play_round(unbeaten + beaten)
    return elimination_rewards(champion, [*out, second], scores)


def swiss(judge: Judge, group: int, rng: np.random.Generator) -> np.ndarray:
    """ceil(log2 G) rounds between members of like points who have not met, ranked by points and then Buchholz.

    A bye is a point. The Buchholz sums are over the opponents' own points; the official code takes them from a
    shuffled list. Those who tie in both share the mean of their rewards.

    >>> swiss(lambda i, j: (i, j), 2, np.random.default_rng(0))
    array([0., 1.])
    """
    points, met = np.zeros(group), np.zeros((group, group), bool)
    for _ in range(min(math.ceil(math.log2(group)), group - 1)):
        order = rng.permutation(group)
        order = order[np.argsort(-points[order], kind="stable")].tolist()
        if group % 2:
            points[order.pop()] += 1
        pairs = _pairs(order, met)
        for i, j in pairs:
            _score(points, i, j, judge)
            met[i, j] = met[j, i] = True
    return swiss_rewards(points, met.astype(float) @ points)


def swiss_rewards(points: Any, buchholz: Any) -> np.ndarray:
    r"""Rewards ``(G - rank) / (G - 1)`` by points and then Buchholz sums, exact ties share their mean.

    >>> swiss_rewards([2, 1, 1], [1, 2, 2])
    array([1.  , 0.25, 0.25])
    """
    keys = np.stack([np.asarray(points, np.float64), np.asarray(buchholz, np.float64)], -1)
    _, which, counts = np.unique(-keys, axis=0, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    places = (last - counts + 1 + last) / 2
    return ((len(keys) - places) / (len(keys) - 1))[which.reshape(-1)]


def arena_rl(
    score_first: Any,
    score_second: Any,
    *,
    scheme: Scheme = single_elimination,
    epsilon: float = 1e-6,
    where: Any = None,
    seed: int = 0,
) -> np.ndarray:
    r"""Advantages of the responses of a group from a tournament (ArenaRL), from the scores of all pairs.

    .. math:: A_i = \frac{r_i - \text{mean}(r)}{\text{std}(r) + \epsilon}

    with the sample standard deviation; a group of one has advantage 0. :func:`tournament_advantages` calls a judge for
    the pairs that meet, instead.

    Args:
      score_first: ``[..., G, G]`` score of i when i is shown first and j second.
      score_second: ``[..., G, G]`` score of j in that comparison.
      scheme: ``anchor``, ``round_robin``, ``single_elimination``, ``double_elimination`` or ``swiss``.
      epsilon: beside the standard deviation.
      where: ``[..., G]`` the responses that exist; the others have advantage 0.
      seed: of the pairings of schemes that draw them.

    Raises:
      UserError: the scores are not square, of one shape, and finite between real responses.

    >>> scores = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0.0]])
    >>> print(arena_rl(scores, scores.T, scheme=round_robin))
    [ 0.99... 0. -0.99...]

    References:
      *ArenaRL: Scaling RL for Open-Ended Agents via Tournament-based Relative Ranking*, arXiv:2601.06487.
    """
    first, second = np.asarray(score_first, np.float64), np.asarray(score_second, np.float64)
    if first.shape != second.shape or first.ndim < 2 or first.shape[-1] != first.shape[-2]:
        raise UserError(f"arena_rl needs scores [..., G, G] of one shape, not {first.shape} and {second.shape}.")
    where = np.ones(first.shape[:-1], bool) if where is None else np.asarray(where, bool)
    advantages = np.zeros(first.shape[:-1])
    for group in np.ndindex(*first.shape[:-2]):
        real = np.flatnonzero(where[group])
        one, other = (x[group][np.ix_(real, real)] for x in (first, second))
        if np.isnan(one[~np.eye(len(real), dtype=bool)]).any() or np.isnan(other[~np.eye(len(real), dtype=bool)]).any():
            raise UserError(f"arena_rl: the scores of group {group or 0} hold NaN between responses that exist.")
        judge = _table(one, other)
        advantages[(*group, real)] = tournament_advantages(judge, len(real), scheme=scheme, epsilon=epsilon, seed=seed)
    return advantages


def tournament_advantages(
    judge: Judge, group: int, *, scheme: Scheme = single_elimination, epsilon: float = 1e-6, seed: int = 0
) -> np.ndarray:
    """Advantages ``[G]`` from a tournament whose matches a judge decides as they come up.

    >>> print(tournament_advantages(lambda i, j: (i, j), 2))
    [-0.7071...  0.7071...]
    """
    if group < 2:
        return np.zeros(group)
    rewards = scheme(judge, group, np.random.default_rng(seed))
    return (rewards - rewards.mean()) / (rewards.std(ddof=1) + epsilon)


def rank_rewards(points: np.ndarray) -> np.ndarray:
    """``(maxrank - rank) / (maxrank - 1)`` with the best rank shared among ties; zeros when all tie.

    >>> rank_rewards(np.array([3.0, 3.0, 1.0]))
    array([1., 1., 0.])
    """
    ranks = 1 + (points > points[:, None]).sum(-1)
    return (ranks.max() - ranks) / max(ranks.max() - 1, 1)


def elimination_rewards(champion: list[int], rounds: list[list[int]], scores: list[list[float]]) -> np.ndarray:
    """``1 - rank / (G - 1)``: the champion, then losers of later rounds first, within a round by mean score."""
    ranked = champion + [p for losers in rounds[::-1] for p in sorted(losers, key=lambda p: -fmean(scores[p]))]
    rewards = np.empty(len(ranked))
    rewards[ranked] = 1 - np.arange(len(ranked)) / (len(ranked) - 1)
    return rewards


def bracket(group: int) -> list[int]:
    """Seeds in the order in which they enter a bracket of the next power of two.

    >>> bracket(8)
    [0, 7, 3, 4, 1, 6, 2, 5]
    """
    order = [0]
    while len(order) < group:
        order = [seed for q in order for seed in (q, 2 * len(order) - 1 - q)]
    return order


def _against_anchor(judge: Judge, group: int) -> np.ndarray:
    """Scores of everybody against member 0, shown second, and the mean of its own."""
    own, its = zip(*(judge(i, 0) for i in range(1, group)), strict=True)
    return np.array([fmean(its), *own], np.float64)


def _play(players: list[int], judge: Judge, scores: list[list[float]]) -> tuple[list[int], list[int]]:
    """Neighbours play; their scores are noted. Winners and losers, in the order of the matches."""
    winners, losers = [], []
    for a, b in zip(players[::2], players[1::2], strict=True):
        for player, score in zip((a, b), judge(a, b), strict=True):
            scores[player].append(float(score))
        ahead = scores[a][-1] >= scores[b][-1]
        winners.append(a if ahead else b)
        losers.append(b if ahead else a)
    return winners, losers


def _score(points: np.ndarray, i: int, j: int, judge: Judge) -> None:
    """Adds what a match is worth: 1 to the winner, 1/2 to both of a tie."""
    one, other = judge(i, j)
    points[i] += (1 + np.sign(one - other)) / 2
    points[j] += (1 - np.sign(one - other)) / 2


def _pairs(order: list[int], met: np.ndarray) -> list[tuple[int, int]]:
    """Pairs from the top, each with the next who has not been met, or the next at all."""
    left, pairs = list(order), []
    while left:
        i = left.pop(0)
        j = next((j for j in left if not met[i, j]), left[0])
        left.remove(j)
        pairs.append((i, j))
    return pairs


def _table(first: np.ndarray, second: np.ndarray) -> Judge:
    return lambda i, j: (first[i, j], second[i, j])
