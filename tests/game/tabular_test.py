"""Exact self-play: the steps agree with gradient descent on the losses, and the solver says when it failed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.game import tabular, win_rate
from tests.examples.game import game

RNG = np.random.default_rng(2)
P, POLICY, REFERENCE = game(RNG, 3, 5), RNG.normal(size=(3, 5)), RNG.normal(size=(3, 5))
BETA, RATE = 0.2, 0.3
STEP = 4 * RATE / (BETA * 5)
CYCLE = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
total = rlx.aggregate.total


def descend(loss):
    return POLICY - RATE * jax.grad(loss)(jnp.asarray(POLICY))


def close(logits, logps):
    np.testing.assert_allclose(jax.nn.log_softmax(logits), logps, rtol=1e-9, atol=1e-12)


def test_gradient_descent_on_the_losses_is_mirror_descent(float64):
    """The logits that a step on the regression leads to are the closed form, for OMD, Nash-MD and extragradient."""

    def check():
        options = {"step_size": STEP, "beta": BETA}
        plain = descend(lambda x: rlx.online_ipo_omd(x, REFERENCE, P, beta=BETA, reduce=total))
        close(plain, tabular.omd(POLICY, P, REFERENCE, **options))
        mixed = {"beta": BETA, "mixture_coef": STEP * BETA, "reduce": total}
        nash_md = descend(lambda x: rlx.nash_md_regression(x, REFERENCE, P, **mixed))
        close(nash_md, tabular.nash_md(POLICY, P, REFERENCE, **options))
        half = win_rate.against(P, plain)
        full = descend(lambda x: rlx.egpo(x, REFERENCE, half, beta=BETA, reduce=total))
        close(full, tabular.extragradient(POLICY, P, REFERENCE, **options))

    float64(check)


def test_the_equilibrium_is_its_own_best_response(float64):
    found = float64(tabular.nash_equilibrium, P, REFERENCE, beta=BETA, tolerance=1e-14)
    reply = float64(win_rate.best_response, P, found.policy_logps, REFERENCE, beta=BETA)
    assert found.converged.all() and found.steps > 1
    np.testing.assert_allclose(reply, found.policy_logps, atol=1e-6)


def test_the_reference_of_many_games_may_be_one():
    found = tabular.nash_equilibrium(P, REFERENCE[0], beta=BETA)
    assert found.policy_logps.shape == (3, 5) and found.converged.all()


def test_the_solver_says_so_when_it_stops_early():
    found = tabular.nash_equilibrium(P, REFERENCE, beta=BETA, max_steps=2)
    assert found.steps == 2 and not found.converged.any() and (found.exploitability > 1e-6).all()
    swinging = tabular.nash_equilibrium(P, REFERENCE, beta=BETA, step_size=50.0, max_steps=50)
    assert not swinging.converged.any()


def test_optimism_finds_the_end_of_a_cycle_that_plain_play_circles():
    start = jnp.array([1.0, 0.0, 0.0])
    optimistic, plain = (tabular.onpo_tabular(start, CYCLE, optimistic=x) for x in (True, False))
    assert optimistic.converged and optimistic.duality_gaps[-1] < 1e-3
    assert not plain.converged and plain.duality_gaps[-1] > plain.duality_gaps[0]
    average = jnp.log(plain.policies.mean(0))
    assert win_rate.duality_gap(CYCLE, average) < 0.05


def test_impossible_actions_stay_impossible():
    start = jnp.array([0.0, 0.0, -jnp.inf])
    played = tabular.onpo_tabular(start, CYCLE, iterations=5)
    np.testing.assert_array_equal(played.policies[:, 2], 0)
    assert np.isfinite(played.duality_gaps).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rlx.nash_equilibrium(P, REFERENCE, beta=0.0), "beta must be above 0"),
        (lambda: rlx.nash_equilibrium(P, REFERENCE[:, :2]), r"reference_logps has shape \(3, 2\)"),
        (lambda: rlx.onpo_tabular(POLICY, P, eta=0.0), "eta must be above 0"),
        (lambda: rlx.onpo_tabular(POLICY, P, iterations=0), "iterations must be above 0"),
        (lambda: rlx.onpo_tabular(POLICY, P[..., 0]), "preferences has shape"),
    ],
)
def test_errors(call, message):
    with pytest.raises(errors.UserError, match=message):
        call()
