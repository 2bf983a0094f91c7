"""Self-play losses: their optimum, pairs that count, and errors."""

import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from tests.examples.game import game

RNG = np.random.default_rng(3)
POLICY, REFERENCE = (jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32) for _ in range(2))
WON = jnp.asarray(RNG.random((3, 4)), jnp.float32)
P = jnp.asarray(game(RNG, 3, 4))


def test_sppo_is_zero_at_the_step_of_multiplicative_weights():
    stepped = REFERENCE + (WON - 0.5) / 0.7
    np.testing.assert_allclose(rlx.sppo(stepped, REFERENCE, WON, beta=0.7), 0, atol=1e-10)
    assert rlx.sppo(stepped + 1, REFERENCE, WON, beta=0.7) == pytest.approx(2.0, rel=1e-4)


def test_egpo_is_zero_at_the_best_response():
    reply = REFERENCE + WON / 0.7
    np.testing.assert_allclose(rlx.egpo(reply + 5, REFERENCE, WON, beta=0.7), 0, atol=1e-9)


@pytest.mark.parametrize("name", ["egpo_llm", "online_ipo"])
def test_a_lone_response_is_no_example(name):
    where = jnp.array([[True, True, False, False], [True, False, False, False], [True] * 4])
    other = {"egpo_llm": WON, "online_ipo": P}[name]
    loss = getattr(rlx, name)
    units = loss(POLICY, REFERENCE, other, where=where, reduce=None)
    assert units[1] == 0 and (units[jnp.array([0, 2])] > 0).all()
    np.testing.assert_allclose(loss(POLICY, REFERENCE, other, where=where), units.sum() / 2, rtol=1e-6)


def test_samples_weigh_the_same_and_actions_as_the_policy_does():
    d = np.asarray(POLICY - REFERENCE)
    squares = np.square(d[:, :, None] - d[:, None, :] - (np.asarray(P) - 0.5) / 0.5)
    p = np.exp(POLICY) / np.exp(POLICY).sum(-1, keepdims=True)
    exact = np.einsum("gi,gij,gj->g", p, squares, p)
    apart = squares.sum((1, 2)) / 12  # a pair of a response with itself is 0
    np.testing.assert_allclose(rlx.online_ipo(POLICY, REFERENCE, P, beta=0.5, reduce=None), exact, rtol=1e-5)
    sampled = rlx.online_ipo(POLICY, REFERENCE, P, beta=0.5, sampled=True, reduce=None)
    np.testing.assert_allclose(sampled, apart, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rlx.sppo(POLICY, REFERENCE, WON, beta=0), "beta must be above 0"),
        (lambda: rlx.sppo(POLICY, REFERENCE, WON[0]), r"scores has shape \(4,\)"),
        (lambda: rlx.egpo(POLICY, REFERENCE, WON[:, :2]), "win_rates has shape"),
        (lambda: rlx.egpo(POLICY, REFERENCE, WON, beta=-1), "beta must be above 0"),
        (lambda: rlx.online_ipo(POLICY, REFERENCE, WON), "preferences has shape"),
        (lambda: rlx.online_ipo_omd(POLICY, REFERENCE, P[..., :2, :2]), "opponent_logps has shape"),
    ],
)
def test_errors(call, message):
    with pytest.raises(errors.UserError, match=message):
        call()
