"""Weights: constants that never let a masked entry through."""

import jax
import jax.numpy as jnp
import numpy as np

from rlx.policy import weights


def test_weights_are_constant_and_masked() -> None:
    where = jnp.array([True, False])

    def total(loss: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.where(where, weights.weigh(loss, w, where), 0).sum()

    gradient, of_weights = jax.grad(total, (0, 1))(jnp.array([2.0, 3.0]), jnp.array([0.5, jnp.nan]))
    np.testing.assert_array_equal(gradient, [0.5, 0])
    np.testing.assert_array_equal(of_weights, [0, 0])


def test_half_precision_is_accumulated_in_float32() -> None:
    assert weights.constant(jnp.ones(2, jnp.bfloat16)).dtype == jnp.float32
