"""The clipped value loss, by hand and by its special case."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.policy import value


def test_without_a_clip_it_is_half_the_squared_error():
    values, old, returns = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    loss = value.value_clip_loss(values, old, returns, clip=np.inf)
    np.testing.assert_allclose(loss, np.mean((values - returns) ** 2) / 2, rtol=1e-6)


def test_a_value_that_moved_too_far_has_no_gradient_unless_it_is_the_worse_one():
    loss = lambda v, target: value.value_clip_loss(jnp.array([v]), jnp.zeros(1), jnp.array([target]), clip=0.5)  # noqa: E731
    assert jax.grad(loss)(1.0, 2.0) == 0  # moved towards the target: the clipped error is the larger one
    assert jax.grad(loss)(1.0, -2.0) == 3  # moved away: the error itself


def test_errors():
    one = jnp.zeros((1, 2))
    with pytest.raises(errors.UserError, match="clip must be above 0, got 0"):
        value.value_clip_loss(one, one, one, clip=0.0)
    with pytest.raises(errors.UserError, match=r"returns has shape \(3, 2\), but values has shape \(1, 3\)"):
        value.value_clip_loss(jnp.zeros((1, 3)), jnp.zeros((1, 3)), jnp.zeros((3, 2)))
