"""Opponents: their weights, their shapes, and what the losses are at their optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.game import multiplayer

RNG = np.random.default_rng(0)
POLICY, REFERENCE = (jnp.asarray(-RNG.exponential(2, (3, 2)), jnp.float32) for _ in range(2))
OPPONENTS = jnp.asarray(-RNG.exponential(2, (3, 4, 2)), jnp.float32)


def test_weights_are_shares_of_the_opponents_in_use():
    mix = multiplayer.weighted_opponents
    np.testing.assert_allclose(mix(OPPONENTS, [2.0, 2.0, 2.0, 2.0]), OPPONENTS.mean(1), rtol=1e-6)
    first, second = OPPONENTS[:, 0], OPPONENTS[:, 1]
    found = mix(OPPONENTS[:, :2], [3.0, 1.0, 9.0])
    np.testing.assert_allclose(found, 0.75 * first + 0.25 * second, rtol=1e-6)
    for nothing in ([0.0] * 4, [-1.0] * 4, None):
        np.testing.assert_allclose(mix(OPPONENTS, nothing), OPPONENTS.mean(1), rtol=1e-6)
    np.testing.assert_array_equal(mix(OPPONENTS[:, :0], None), 0)


def test_an_opponent_without_weight_is_not_read():
    spoiled = OPPONENTS.at[:, 1:].set(-jnp.inf)
    loss = rlx.mnpo(POLICY, REFERENCE, spoiled, weights=[1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(loss, rlx.mnpo(POLICY, REFERENCE, OPPONENTS[:, :1]), rtol=1e-6)


def test_without_opponents_the_reference_keeps_its_factor():
    d = POLICY - 0.25 * REFERENCE
    expected = np.square(d[:, 0] - d[:, 1] - 1).mean()
    np.testing.assert_allclose(rlx.mnpo(POLICY, REFERENCE, OPPONENTS[:, :0], eta=0.5, ratio=0.25), expected, rtol=1e-6)


def test_opponents_are_constants():
    def loss(*arrays):
        return rlx.mnpo(*arrays, eta=0.5)

    gradients = jax.grad(loss, argnums=(0, 1, 2))(POLICY, REFERENCE, OPPONENTS)
    assert np.abs(gradients[0]).min() > 0 and not np.any(gradients[1]) and not np.any(gradients[2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rlx.mnpo(POLICY, REFERENCE, REFERENCE), r"opponent_logps has shape \(3, 2\).*axis of their own"),
        (lambda: rlx.onpo(POLICY, OPPONENTS[:2]), r"\(2, 4, 2\), but policy_logps has shape \(3, 2\)"),
        (lambda: rlx.mnpo(POLICY, REFERENCE, OPPONENTS, weights=[1.0]), "weights has 1 entries for 4 opponents"),
        (lambda: rlx.mnpo(POLICY, REFERENCE, OPPONENTS, eta=0), "eta must be above 0"),
        (lambda: rlx.inpo(POLICY, REFERENCE, OPPONENTS, eta=0), "eta must be above 0"),
        (lambda: rlx.onpo(POLICY, OPPONENTS, eta=-1), "eta must be above 0"),
        (lambda: rlx.mnpo(OPPONENTS[..., 0], OPPONENTS[..., 0], OPPONENTS), "a pairwise loss wants"),
    ],
)
def test_errors(call, message):
    with pytest.raises(errors.UserError, match=message):
        call()
