"""Tournaments: the best wins every one of them, calls are as few as stated, ragged groups, ties, errors."""

import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.evaluation import tournaments

SCHEMES = [
    tournaments.anchor,
    tournaments.round_robin,
    tournaments.single_elimination,
    tournaments.double_elimination,
    tournaments.swiss,
]
RNG = np.random.default_rng(0)


class Judge:
    """Scores by a hidden quality, and counts the calls."""

    def __init__(self, quality):
        self.quality, self.calls = quality, []

    def __call__(self, first, second):
        assert first != second
        self.calls.append((first, second))
        return self.quality[first], self.quality[second]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("group", [2, 3, 5, 8])
def test_the_best_wins(scheme, group):
    quality = RNG.permutation(group).astype(float)
    advantages = tournaments.tournament_advantages(Judge(quality), group, scheme=scheme, seed=group)
    assert advantages.argmax() == quality.argmax() and abs(advantages.mean()) < 1e-9
    assert (np.abs(advantages) < 3).all()


@pytest.mark.parametrize(
    ("scheme", "calls"),
    [
        (tournaments.anchor, 7),
        (tournaments.round_robin, 28),
        (tournaments.single_elimination, 14),
        (tournaments.double_elimination, 14),
        (tournaments.swiss, 12),
    ],
)
def test_calls(scheme, calls):
    judge = Judge(np.arange(8.0))
    rewards = scheme(judge, 8, np.random.default_rng(0))
    assert len(judge.calls) == calls and rewards.min() >= 0 and rewards.max() <= 1


def test_double_elimination_forgives_one_loss():
    """A member that only the champion beats comes second, whenever the two meet; everybody else loses twice."""
    for seed in range(6):
        quality = np.array([3.0, 9.0, 1.0, 8.0, 2.0, 4.0, 0.0])
        rewards = tournaments.double_elimination(Judge(quality), 7, np.random.default_rng(seed))
        assert rewards[1] == 1 and rewards[3] == pytest.approx(5 / 6)
        np.testing.assert_allclose(np.sort(rewards), np.arange(7) / 6)


def test_swiss_avoids_rematches_and_gives_byes():
    judge = Judge(np.zeros(5))
    rewards = tournaments.swiss(judge, 5, np.random.default_rng(0))
    met = {frozenset(pair) for pair in judge.calls}
    assert len(judge.calls) == 6 and len(met) >= 5
    assert rewards.mean() == pytest.approx(0.5)


def test_opponents_count_by_their_own_points():
    """Buchholz: of two with one win each, the one who lost to the champion is ahead."""
    np.testing.assert_allclose(tournaments.swiss_rewards([2, 1, 1, 0], [2, 2, 1, 2]), [1, 2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(tournaments.swiss_rewards([1, 1, 1], [1, 1, 1]), 0.5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ragged_groups_are_those_without_the_missing(scheme):
    first, second = RNG.random((2, 3, 6, 6))
    where = np.ones((3, 6), bool)
    where[1, [0, 3]], where[2, 1:] = False, False
    first[1, 0], second[1, 3] = np.nan, np.nan
    found = rlx.arena_rl(first, second, scheme=scheme, where=where, seed=4)
    kept = np.flatnonzero(where[1])
    alone = rlx.arena_rl(first[1][np.ix_(kept, kept)], second[1][np.ix_(kept, kept)], scheme=scheme, seed=4)
    np.testing.assert_array_equal(found[1, kept], alone)
    np.testing.assert_array_equal(found[~where], 0)
    np.testing.assert_array_equal(found[2], 0)  # a group of one


def test_a_tie_of_all_is_no_advantage_but_positional_in_a_bracket():
    ties = np.ones((4, 4))
    for name in ("arenarl_anchor_advantage", "arenarl_round_robin_advantage"):
        np.testing.assert_array_equal(getattr(rlx, name)(ties, ties), 0)
    assert np.ptp(rlx.arenarl_single_elimination_advantage(ties, ties)) > 1


def test_errors():
    with pytest.raises(errors.UserError, match=r"\[\.\.\., G, G\] of one shape, not \(2, 3\) and \(2, 3\)"):
        rlx.arena_rl(np.zeros((2, 3)), np.zeros((2, 3)))
    broken = np.zeros((2, 3, 3))
    broken[1, 0, 2] = np.nan
    with pytest.raises(errors.UserError, match=r"scores of group \(1,\) hold NaN"):
        rlx.arena_rl(broken, np.zeros((2, 3, 3)))
