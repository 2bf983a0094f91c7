"""Norms and angles at the points where they have no slope."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.reward import embedding

ZERO, ONE = jnp.zeros(3), jnp.array([1.0, 2.0, 2.0])


@pytest.mark.parametrize("function", [embedding.distance, embedding.cosine])
@pytest.mark.parametrize(
    ("x", "y"), [(ZERO, ZERO), (ONE, ONE), (ZERO, ONE), (1e15 * ONE, -1e15 * ONE), (1e-30 * ONE, ONE)]
)
def test_slopes_are_finite_everywhere(function, x, y):
    value, slope = jax.value_and_grad(function)(x, y)
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_coincident_points_do_not_move():
    assert embedding.distance(ONE, ONE) == 0
    np.testing.assert_array_equal(jax.grad(embedding.distance)(ONE, ONE), 0)


def test_the_norm_neither_overflows_nor_vanishes():
    for scale in (1e-30, 1.0, 1e30):
        np.testing.assert_allclose(embedding.norm(scale * ONE), 3 * scale, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(embedding.norm)(1e30 * ONE), ONE / 3, rtol=1e-6)
