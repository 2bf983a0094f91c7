"""Models paired round after round with opponents of equal score: expected wins in a Swiss tournament of benchmarks."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from rlx.errors import UserError

EXACT_LIMIT = 8
"""Models whose pairings are enumerated in seconds."""
Distribution = dict[Any, Fraction]


class SwissScore(NamedTuple):
    """Expected wins ``[M]``, and the models by them, the best first."""

    expected_wins: np.ndarray
    ranking: np.ndarray


def llm_swiss_round(
    round_scores: Any, *, eliminations: int | Sequence[int] = 0, simulations: int | None = None, seed: int = 0
) -> SwissScore:
    r"""Competitive Swiss-system dynamics: the expected number of rounds that a model wins.

    .. math:: E[S_m] = E_{\text{pairings}} \Big[ \sum_r 1[m \text{ beats its opponent of round } r] \Big]

    In every round the models left are grouped by their wins, each group is shuffled and paired; the odd one out plays
    nobody and gets no point. The higher score of the round wins, equal scores half the time each. Then the models with
    the fewest wins leave, of equal ones the lowest index first, and keep their wins.

    Args:
      round_scores: ``[M, R]`` mean score of a model on the data of a round.
      eliminations: models that leave after a round: one number, or one for each round.
      simulations: number of simulated tournaments; None enumerates all pairings exactly, for up to 8 models.
      seed: of the simulations.

    Raises:
      UserError: there are too many models to enumerate, or the shapes disagree.

    >>> print(llm_swiss_round([[0.9], [0.5], [0.1]]).expected_wins)
    [0.66666667 0.33333333 0.        ]

    References:
      *LLM Swiss Round: Competitive Swiss-System Dynamics*, arXiv:2512.21010.
    """
    scores = np.asarray(round_scores, np.float64)
    leave = np.broadcast_to(eliminations, scores.shape[1:])
    if scores.ndim != 2 or not np.isfinite(scores).all() or (leave < 0).any():
        raise UserError(f"llm_swiss_round needs finite scores [models, rounds], eliminations >= 0: {scores.shape}.")
    if simulations is None and len(scores) > EXACT_LIMIT:
        raise UserError(f"{len(scores)} models are too many to enumerate: pass simulations=100_000, or so.")
    wins = _exact(scores, leave) if simulations is None else _simulated(scores, leave, simulations, seed)
    return SwissScore(wins, np.argsort(-wins, kind="stable"))


def failure_sensitivity(round_scores: Any, *, eliminations: Sequence[int] = (0, 1, 2), **keywords: Any) -> np.ndarray:
    """Slope ``[M]`` of the expected wins over the number of eliminations a round, by least squares.

    >>> print(failure_sensitivity([[0.9, 0.9], [0.5, 0.6], [0.1, 0.1]]).round(3))
    [-0.167 -0.333  0.   ]
    """
    wins = [llm_swiss_round(round_scores, eliminations=count, **keywords).expected_wins for count in eliminations]
    x = np.asarray(eliminations, np.float64) - np.mean(eliminations)
    return x @ np.stack(wins) / (x @ x)


def _exact(scores: np.ndarray, leave: np.ndarray) -> np.ndarray:
    """Follows the distribution over (wins, models left), in fractions."""
    models = range(len(scores))
    states: Distribution = {((0,) * len(scores), tuple(models)): Fraction(1)}
    for column, count in zip(scores.T, leave, strict=True):
        play = functools.cache(functools.partial(_winners, column=tuple(column)))
        following: Distribution = defaultdict(Fraction)
        for (wins, left), weight in states.items():
            groups: dict[int, list[int]] = defaultdict(list)
            for model in left:
                groups[wins[model]].append(model)
            for won, chance in _together([play(tuple(group)) for group in groups.values()]).items():
                after = tuple(win + (model in won) for model, win in enumerate(wins))
                gone = sorted(left, key=lambda model: after[model])[:count]
                following[after, tuple(model for model in left if model not in gone)] += weight * chance
        states = following
    return np.array([float(sum(weight * wins[m] for (wins, _), weight in states.items())) for m in models])


def _winners(group: tuple[int, ...], *, column: tuple[float, ...]) -> Distribution:
    """Who wins when a group is paired at random: sets of winners and their probabilities."""
    if len(group) < 2:
        return {frozenset(): Fraction(1)}
    found: Distribution = defaultdict(Fraction)
    if len(group) % 2:
        for i in range(len(group)):
            for won, chance in _winners(group[:i] + group[i + 1 :], column=column).items():
                found[won] += chance / len(group)
        return found
    one = group[0]
    for i in range(1, len(group)):
        other = group[i]
        tied = column[one] == column[other]
        winners = (one, other) if tied else (one if column[one] > column[other] else other,)
        for won, chance in _winners(group[1:i] + group[i + 1 :], column=column).items():
            for winner in winners:
                found[won | {winner}] += chance / (len(group) - 1) / len(winners)
    return found


def _together(parts: list[Distribution]) -> Distribution:
    """Winners of independent groups."""
    joint: Distribution = {frozenset(): Fraction(1)}
    for part in parts:
        joint = {a | b: p * q for a, p in joint.items() for b, q in part.items()}
    return joint


def _simulated(scores: np.ndarray, leave: np.ndarray, simulations: int, seed: int) -> np.ndarray:
    """Many tournaments side by side: models sorted by wins and a random number, neighbours of a group paired."""
    rng, models = np.random.default_rng(seed), len(scores)
    wins, left = np.zeros((simulations, models), int), np.ones((simulations, models), bool)
    rows, place = np.arange(simulations)[:, None], np.arange(models)
    for column, count in zip(scores.T, leave, strict=True):
        order = np.argsort(np.where(left, wins + rng.random(wins.shape), math.inf), -1)
        group = np.where(left, wins, -1)[rows, order]
        starts = np.concatenate([np.ones((simulations, 1), bool), group[:, 1:] != group[:, :-1]], -1)
        within = place - np.maximum.accumulate(np.where(starts, place, 0), -1)
        first = (within[:, :-1] % 2 == 0) & (group[:, 1:] == group[:, :-1]) & (group[:, :-1] >= 0)
        ahead = column[order[:, :-1]] > column[order[:, 1:]]
        np.add.at(wins, (np.broadcast_to(rows, first.shape)[first & ahead], order[:, :-1][first & ahead]), 1)
        np.add.at(wins, (np.broadcast_to(rows, first.shape)[first & ~ahead], order[:, 1:][first & ~ahead]), 1)
        lowest = np.argsort(np.where(left, wins, np.iinfo(int).max), -1, kind="stable")[:, : int(count)]
        left[rows, lowest] = False
    return wins.mean(0)
