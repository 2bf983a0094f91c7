"""Win rates and what a policy is worth: against brute force, by hand, and where digits are scarce."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.game import win_rate
from tests.examples.game import game

RNG = np.random.default_rng(1)
P, POLICY, REFERENCE = game(RNG, 3, 5), RNG.normal(size=(3, 5)), RNG.normal(size=(3, 5))
REAL = np.array([[True, True, True, False, True], [True] * 5, [False, True, True, False, False]])


def probabilities(logits):
    return np.exp(logits - np.logaddexp.reduce(logits, -1, keepdims=True))


def kl(p, q):
    return np.sum(p * np.log(p / q), -1)


def payoff(p, q, reference, beta):
    won = np.einsum("gi,gij,gj->g", p, P, q)
    return won - beta * kl(p, reference) + beta * kl(q, reference)


def test_value_is_the_game(float64):
    p, q, reference = map(probabilities, (POLICY, POLICY[::-1], REFERENCE))
    found = float64(win_rate.value, P, POLICY, POLICY[::-1], REFERENCE, beta=0.3)
    np.testing.assert_allclose(found, payoff(p, q, reference, 0.3), rtol=1e-6)


def test_the_best_response_is_the_best(float64):
    """No other policy gains more, and what it gains is the exploitability."""
    reply = np.exp(float64(win_rate.best_response, P, POLICY, REFERENCE, beta=0.3))
    p, reference = probabilities(POLICY), probabilities(REFERENCE)
    best = payoff(reply, p, reference, 0.3)
    for other in (probabilities(RNG.normal(size=(3, 5))), 0.9 * reply + 0.1 * p, p, reference):
        assert (payoff(other, p, reference, 0.3) < best).all()
    found = float64(win_rate.exploitability, P, POLICY, REFERENCE, beta=0.3)
    np.testing.assert_allclose(found, best - 0.5, rtol=1e-6)
    both = best - payoff(p, reply, reference, 0.3)
    np.testing.assert_allclose(float64(win_rate.duality_gap, P, POLICY, REFERENCE, beta=0.3), both, rtol=1e-6)


def test_the_plain_gap_is_over_pure_actions(float64):
    p = probabilities(POLICY)
    won, lost = np.einsum("gij,gj->gi", P, p), np.einsum("gi,gij->gj", p, P)
    found = float64(win_rate.duality_gap, P, POLICY)
    np.testing.assert_allclose(found, won.max(-1) - lost.min(-1), rtol=1e-6)


def test_a_strength_needs_a_reference_and_a_reference_a_strength():
    with pytest.raises(errors.UserError, match="with a beta needs reference_logps"):
        win_rate.exploitability(P, POLICY, beta=0.1)
    with pytest.raises(errors.UserError, match="beta must be above 0"):
        win_rate.exploitability(P, POLICY, REFERENCE)


@pytest.mark.parametrize("size", [3.0, 0.3, 1e-2, 1e-5, 1e-9])
def test_divergence_keeps_its_digits(float64, size):
    """Against the two leading terms of its series, or the plain sum where that has digits."""
    step = size * np.array([1.0, -1.0, 0.5])
    found = float64(win_rate.divergence, np.zeros(3), step)
    exact = -np.mean(step) + np.log(np.mean(np.exp(step)))
    variance, third = np.var(step), np.mean((step - step.mean()) ** 3)
    np.testing.assert_allclose(found, exact if size > 0.1 else variance / 2 + third / 6, rtol=1e-4)


def test_divergence_of_what_cannot_happen():
    impossible = jnp.array([0.0, 0.0, -jnp.inf])
    np.testing.assert_allclose(win_rate.divergence(impossible, jnp.zeros(3)), np.log(1.5), rtol=1e-6)
    assert win_rate.divergence(jnp.zeros(3), impossible) == jnp.inf
    assert win_rate.divergence(impossible, impossible) == 0


def test_masked_actions_are_not_there():
    """Whatever stands in their rows and columns; the result is that of the smaller game."""
    both = REAL[:, :, None] & REAL[:, None, :]
    spoiled, policy = np.where(both, P, np.nan), np.where(REAL, POLICY, np.nan)
    options = {"beta": 0.3, "where": jnp.asarray(REAL)}
    gaps = win_rate.exploitability(jnp.asarray(spoiled), jnp.asarray(policy), jnp.asarray(REFERENCE), **options)
    plain = win_rate.exploitability(jnp.asarray(spoiled), jnp.asarray(policy), where=options["where"])
    for g, real in enumerate(REAL):
        small = P[g][np.ix_(real, real)], POLICY[g, real], REFERENCE[g, real]
        np.testing.assert_allclose(gaps[g], win_rate.exploitability(*small, beta=0.3), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(plain[g], win_rate.exploitability(*small[:2]), rtol=1e-4, atol=1e-7)


def test_counted_comparisons():
    wins = np.array([[9, 3, 0], [1, 9, 0], [0, 2.5, 0]])
    expected = [[0.5, 0.75, 0.5], [0.25, 0.5, 0.0], [0.5, 1.0, 0.5]]
    np.testing.assert_allclose(win_rate.preference_matrix(wins), expected, rtol=1e-6)


def test_sample_win_rates_with_what_was_not_compared():
    table = jnp.array([[0.5, 1.0, jnp.nan], [0.0, 0.5, jnp.nan], [jnp.nan, jnp.nan, 0.5]])
    made = ~jnp.isnan(table)
    np.testing.assert_array_equal(win_rate.sample_win_rates(table, where=made), [1.0, 0.0, 0.5])
    np.testing.assert_array_equal(win_rate.sample_win_rates(table, self_pairs=True, where=made), [0.75, 0.25, 0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: win_rate.preference_matrix(np.zeros((2, 3))),
            r"preferences has shape \(2, 3\): it wants \[..., K, K\]",
        ),
        (lambda: win_rate.against(P, POLICY[:, :4]), r"opponent_logps has shape \(3, 4\).*K differs"),
    ],
)
def test_errors(call, message):
    with pytest.raises(errors.UserError, match=message):
        call()
