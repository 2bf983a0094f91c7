"""Soft Condorcet: the limit is Kemeny's distance, Kemeny's ranking is found where Borda's fails, flags and errors."""

import jax
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.evaluation import aggregation, condorcet

VOTES = [[0, 1, 2]] * 3 + [[1, 2, 0]] * 2
PREFERENCES = (aggregation.preference_matrix(VOTES) / len(VOTES)).astype(np.float32)


def test_at_low_temperature_the_loss_is_kemenys_distance():
    ratings = np.array([2.0, 1.0, 0.0])
    disagree = PREFERENCES.sum() - rlx.kemeny(PREFERENCES).score
    np.testing.assert_allclose(
        condorcet.soft_condorcet_loss(ratings, PREFERENCES, temperature=1e-3), disagree, rtol=1e-6
    )


def test_kemeny_where_borda_disagrees():
    found = rlx.soft_condorcet(PREFERENCES, learning_rate=1.0, temperature=0.3, bounds=(-1.0, 1.0), iterations=3000)
    ranking = np.argsort(-np.asarray(found.ratings)).tolist()
    assert found.converged and [ranking] == rlx.kemeny(PREFERENCES).rankings
    assert np.argmax(rlx.borda(PREFERENCES)) == 1 != ranking[0]


def test_too_few_steps_are_flagged():
    found = rlx.soft_condorcet(PREFERENCES, iterations=2, learning_rate=1e-3)
    assert not found.converged and found.gradient_norm > 1e-3
    assert found.ratings.max() < 501  # the middle of the bounds


def test_bounds_hold_and_what_they_hold_back_is_no_gradient():
    one_sided = np.array([[0, 1.0], [0, 0]], np.float32)
    found = rlx.soft_condorcet(one_sided, learning_rate=5.0, bounds=(-1.0, 1.0))
    np.testing.assert_array_equal(found.ratings, [1.0, -1.0])
    assert found.converged and found.gradient_norm == 0


def test_perturbed_ranks_follow_the_votes():
    """Partial votes may be ragged; the expected perturbed ranks become those of the votes."""
    ragged = [[0, 1, 2], [0, 1], [0, 2], [1, 2]]
    found = rlx.fenchel_young_condorcet(
        ragged, key=jax.random.PRNGKey(1), sigma=1.0, bounds=(-20.0, 20.0), learning_rate=0.5
    )
    assert np.argsort(-np.asarray(found.ratings)).tolist() == [0, 1, 2]


def test_errors():
    with pytest.raises(errors.UserError, match="lower bound of ratings must be below"):
        rlx.soft_condorcet(PREFERENCES, bounds=(1.0, 1.0))
    with pytest.raises(errors.UserError, match="pass alternatives=N"):
        jax.jit(lambda votes: rlx.fenchel_young_condorcet(votes, key=jax.random.PRNGKey(0)).ratings)(np.array([[0, 1]]))
    with pytest.raises(errors.UserError, match="square matrices"):
        rlx.soft_condorcet(np.zeros((2, 3)))
