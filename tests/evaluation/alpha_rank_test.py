"""alpha-Rank against the eigenvector of the whole chain, at extremes of alpha, and its errors."""

import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.evaluation import alpha_rank

RNG = np.random.default_rng(0)


def stationary(rates):
    """The left eigenvector, by least squares."""
    chain = rates + np.diag(1 - rates.sum(-1))
    system = np.vstack([chain.T - np.eye(len(chain)), np.ones(len(chain))])
    return np.linalg.lstsq(system, np.eye(len(chain) + 1)[-1], rcond=None)[0]


def test_elimination_solves_the_chain(float64):
    rates = RNG.random((6, 6)) / 6
    np.fill_diagonal(rates, 0)
    found = float64(lambda: np.exp(alpha_rank.log_stationary(np.log(rates + np.eye(6)))))
    np.testing.assert_allclose(found, stationary(rates), rtol=1e-10)


def test_masses_below_rounding_stay_positive_and_ordered(float64):
    """A ladder of rates: each state is 1e-60 of the one above."""
    logs = np.full((4, 4), -np.inf)
    for i in range(3):
        logs[i, i + 1], logs[i + 1, i] = -1.0, -1.0 - 60 * np.log(10)
    found = float64(lambda: alpha_rank.log_stationary(logs))
    np.testing.assert_allclose(np.diff(found), 60 * np.log(10), rtol=1e-12)


@pytest.mark.parametrize("u", [1e-12, 1e-3, 1.0, 30.0, 1e5])
def test_fixation_is_reversible(u, float64):
    """rho(u) / rho(-u) = e^((m-1) u)."""
    up, down = float64(lambda: [alpha_rank.log_fixation(np.float64(x), 20) for x in (u, -u)])
    np.testing.assert_allclose(up - down, 19 * u, rtol=1e-9, atol=1e-12)


def test_infinite_alpha_is_the_limit(float64):
    payoffs = RNG.normal(size=(4, 4))
    large = float64(lambda: rlx.alpha_rank(payoffs, alpha=1e6).stationary_distribution)
    limit = float64(lambda: rlx.alpha_rank(payoffs, infinite_alpha=True, epsilon=1e-9).stationary_distribution)
    np.testing.assert_allclose(large, limit, atol=1e-6)


def test_one_population_against_itself_is_symmetric():
    """Two populations that play the transposed game of each other rank the strategies alike."""
    payoffs = RNG.normal(size=(3, 3))
    found = rlx.alpha_rank(np.stack([payoffs, payoffs.T]), alpha=1.0).stationary_distribution.reshape(3, 3)
    np.testing.assert_allclose(found, found.T, rtol=1e-4)


def test_sweep_ends_at_the_limit_and_says_when_it_does_not():
    payoffs = np.array([[0, 1.0, 0.2], [0, 0, 0.1], [0.9, 0.4, 0]], np.float32)
    found = alpha_rank.alpha_rank_sweep(payoffs)
    assert found.converged and not alpha_rank.alpha_rank_sweep(payoffs, steps=2).converged
    limit = rlx.alpha_rank(payoffs, infinite_alpha=True, epsilon=1e-6).stationary_distribution
    np.testing.assert_allclose(found.stationary_distribution, limit, atol=1e-3)
    equal = alpha_rank.alpha_rank_sweep(np.zeros((3, 3)))
    np.testing.assert_allclose(equal.stationary_distribution, 1 / 3, rtol=1e-6)
    assert equal.converged


@pytest.mark.parametrize(
    ("payoffs", "keywords", "message"),
    [
        (np.zeros((2, 3)), {}, r"\[P, N_1, \.\.\., N_P\], not \(2, 3\)"),
        (np.zeros((2, 3, 3, 3)), {}, r"not \(2, 3, 3, 3\)"),
        (np.zeros((1, 1)), {}, "two strategies"),
        (np.zeros((2, 3, 3)), {"local_selection": False}, "several populations need local selection"),
        (np.zeros((3, 3)), {"alpha": 0.0}, "alpha must be above 0"),
    ],
)
def test_errors(payoffs, keywords, message):
    with pytest.raises(errors.UserError, match=message):
        rlx.alpha_rank(payoffs, **keywords)
