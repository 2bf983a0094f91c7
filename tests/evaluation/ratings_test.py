"""Elo against a loop, Bradley-Terry against closed forms and simulation, separable data, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.evaluation import ratings

RNG = np.random.default_rng(0)


def test_elo_is_a_loop(float64):
    a, b, score = RNG.integers(0, 5, 40), RNG.integers(0, 5, 40), RNG.integers(0, 3, 40) / 2
    expected = np.full(5, 1000.0)
    for i, j, s in zip(a, b, score, strict=True):
        gain = 16 * (s - 1 / (1 + 10 ** ((expected[j] - expected[i]) / 400)))
        expected[i] += gain
        expected[j] -= gain
    found = float64(lambda: rlx.elo(a, b, score, k_factor=16.0))
    np.testing.assert_allclose(found.ratings, expected, rtol=1e-12)


def test_elo_needs_the_number_of_players_under_jit():
    games = jnp.array([0, 1]), jnp.array([1, 2]), jnp.array([1.0, 0.0])
    assert jax.jit(lambda *x: rlx.elo(*x, players=3).ratings)(*games).shape == (3,)
    with pytest.raises(errors.UserError, match="elo must be told the number of players under jit: pass players=N"):
        jax.jit(lambda *x: rlx.elo(*x).ratings)(*games)
    with pytest.raises(errors.UserError, match="three vectors of one length"):
        rlx.elo(jnp.array([0]), jnp.array([1, 2]), jnp.array([1.0]))


def test_shuffled_elo_depends_less_on_the_order():
    a, b = np.zeros(40, int), np.ones(40, int)
    score = np.repeat([1.0, 0.0], 20)
    one = np.ptp(np.asarray(rlx.elo(a, b, score).ratings))
    found = ratings.elo_bootstrap(a, b, score, key=jax.random.PRNGKey(0), replace=False, k_factor=32.0)
    assert one > 150 and np.ptp(np.asarray(found.ratings)) < 30
    assert (found.low < 1000).all() and (found.high > 1000).all()


def test_two_players_have_the_log_odds(float64):
    fit = float64(lambda: rlx.bradley_terry_mle(np.array([[0, 30.0], [10.0, 0]])))
    np.testing.assert_allclose(fit.log_strengths, [np.log(3) / 2, -np.log(3) / 2], rtol=1e-12)
    difference = float64(lambda: ratings.difference_intervals(fit, z=1.0))
    np.testing.assert_allclose(difference.high[0, 1] - difference.mean[0, 1], np.sqrt(1 / 30 + 1 / 10), rtol=1e-12)
    assert fit.converged and not fit.separable


def test_intervals_cover_differences():
    """95 % of intervals of a difference hold the truth; without the covariance they would be too narrow or too wide."""
    truth = np.array([0.8, 0.2, 0.0, -1.0])
    chance = 1 / (1 + np.exp(truth - truth[:, None]))
    upper = np.triu(np.random.default_rng(3).binomial(30, chance, (300, 4, 4)), 1)
    wins = upper + np.swapaxes(np.triu(30 - upper, 1), 1, 2)
    fits = jax.vmap(lambda w: ratings.difference_intervals(rlx.bradley_terry_mle(w)))(wins.astype(np.float32))
    held = (fits.low <= truth[:, None] - truth) & (truth[:, None] - truth <= fits.high)
    assert 0.93 < np.asarray(held)[:, *np.triu_indices(4, 1)].mean() < 0.97


@pytest.mark.parametrize("wins", [[[0, 5, 5], [0, 0, 2], [0, 3, 0]], [[0, 5, 0], [2, 0, 0], [0, 0, 0]]])
def test_separable_data_says_so(wins):
    """An item that always wins, and one that never plays: no maximiser, unless a ridge makes one."""
    plain, ridge = (rlx.bradley_terry_mle(np.array(wins, np.float32), ridge=ridge) for ridge in (0.0, 0.1))
    assert plain.separable and not plain.converged
    assert ridge.separable and ridge.converged and np.isfinite(ridge.covariance).all()


def test_a_ridge_pulls_together_and_bad_shapes_are_named():
    wins = np.array([[0, 9.0], [1.0, 0]])
    spreads = [np.ptp(np.asarray(rlx.bradley_terry_mle(wins, ridge=ridge).log_strengths)) for ridge in (0.0, 1.0, 10.0)]
    assert spreads == sorted(spreads, reverse=True)
    with pytest.raises(errors.UserError, match=r"square matrices of one size.*wins \(2, 3\)"):
        rlx.bradley_terry_mle(np.ones((2, 3)))


def test_few_steps_do_not_converge():
    wins = np.array([[0, 1000.0, 1.0], [1.0, 0, 900.0], [1.0, 1.0, 0]])
    assert not rlx.bradley_terry_mle(wins, max_steps=2).converged and rlx.bradley_terry_mle(wins).converged
