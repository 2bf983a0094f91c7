"""The degree classification: its derivation by hand, the loss it is added to, masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors

RNG = np.random.default_rng(0)
LOGITS, DEGREES = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32), jnp.array([0, 3, 1])


def test_value_and_gradient_of_the_cross_entropy():
    """The gradient of -log softmax is the distribution less the one-hot degree, times the weight."""
    p = np.asarray(jax.nn.softmax(LOGITS))
    value, slope = jax.value_and_grad(lambda z: rlx.spo_degree(z, DEGREES, weight=0.5))(LOGITS)
    np.testing.assert_allclose(value, -0.5 * np.log(p[np.arange(3), np.asarray(DEGREES)]).mean(), rtol=1e-5)
    np.testing.assert_allclose(slope, 0.5 * (p - np.eye(4)[np.asarray(DEGREES)]) / 3, atol=1e-6)


def test_it_is_added_to_a_preference_loss():
    policy = jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32)

    def loss(policy):
        alignment = rlx.dpo(policy, jnp.zeros((3, 2)), reduce=None)
        return rlx.spo_degree(LOGITS, DEGREES, alignment=alignment)

    value, slope = jax.value_and_grad(loss)(policy)
    expected, expected_slope = jax.value_and_grad(lambda p: rlx.dpo(p, jnp.zeros((3, 2))))(policy)
    np.testing.assert_allclose(value, expected + rlx.spo_degree(LOGITS, DEGREES), rtol=1e-6)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-6)


def test_masked_rows_do_not_count():
    where, hidden = jnp.array([True, False, True]), LOGITS.at[1].set(jnp.nan)
    alignment = jnp.array([1.0, jnp.nan, 3.0])
    found = rlx.spo_degree(hidden, DEGREES, alignment=alignment, weight=0.0, where=where)
    np.testing.assert_allclose(found, 2.0)


def test_wrong_shapes_are_named():
    with pytest.raises(errors.UserError, match="alignment has shape .* they must agree"):
        rlx.spo_degree(LOGITS, DEGREES, alignment=jnp.zeros(2))
    with pytest.raises(errors.UserError, match="logits without their last axis"):
        rlx.spo_degree(LOGITS, DEGREES[:2])
