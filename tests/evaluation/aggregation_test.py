"""Rankings of rankings: the search against all permutations, partial votes, benchmarks of unequal tasks, errors."""

import itertools

import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.evaluation import aggregation

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [1, 2, 5, 6])
def test_kemeny_finds_every_best_permutation(size):
    votes = RNG.integers(0, 3, (size, size)).astype(float)
    values = {
        p: votes[np.asarray(p)[:, None], p][np.triu_indices(size, 1)].sum() for p in itertools.permutations(range(size))
    }
    best = max(values.values())
    found = rlx.kemeny(votes)
    assert found.score == best and found.rankings == [list(p) for p, value in values.items() if value == best]
    assert rlx.kemeny(np.zeros((3, 3)), most=4).rankings == [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0]]


def test_partial_votes_say_nothing_of_the_others():
    matrix = aggregation.preference_matrix([[2, 0], [1]], [2, 5], alternatives=4)
    assert matrix.sum() == 2 == matrix[2, 0]
    np.testing.assert_array_equal(rlx.borda(matrix), [0, 0, 2, 0])
    np.testing.assert_array_equal(rlx.copeland(matrix), [1.0, 1.5, 2.0, 1.5])


def test_tasks_of_unequal_size_weigh_the_same_on_two_levels():
    """System 1 wins every instance of the large task, system 0 those of the two small ones."""
    large, small = np.tile([0.0, 1.0], (9, 1)), np.array([[1.0, 0.0]])
    np.testing.assert_array_equal(rlx.two_level_borda([large, small, small]).positions, [1, 0])
    np.testing.assert_array_equal(rlx.two_level_borda([large, small, small], levels=1).counts, [2, 9])


def test_errors():
    with pytest.raises(
        errors.UserError, match=r"vote 1 must name each of the alternatives 0\.\.2 at most once: \[1, 1\]"
    ):
        aggregation.preference_matrix([[0, 2], [1, 1]])
    with pytest.raises(errors.UserError, match="at most 16 alternatives, not 17; soft_condorcet takes more"):
        rlx.kemeny(np.zeros((17, 17)))
    with pytest.raises(errors.UserError, match=r"\[\(2, 2\), \(2, 3\)\]"):
        rlx.two_level_borda([np.zeros((2, 2)), np.zeros((2, 3))])
