"""Ratios: bounds without gradient, masks, and the two forms of the sequence ratio."""

import jax
import jax.numpy as jnp
import numpy as np

from rlx.policy import ratios
from rlx.types import Ratio

WHERE = jnp.array([[True, True, True, False]])
LOGPROBS = jnp.array([[-1.0, -2.0, -0.5, jnp.nan]])
OLD = jnp.array([[-1.5, -2.0, -1.5, jnp.inf]])


def test_clamp_has_gradient_one_inside_and_on_the_bounds() -> None:
    x = jnp.array([-3.0, -2.0, 0.0, 2.0, 3.0])
    values, slopes = jax.vmap(jax.value_and_grad(lambda x: ratios.clamp(x, -2.0, 2.0)))(x)
    np.testing.assert_array_equal(values, [-2, -2, 0, 2, 2])
    np.testing.assert_array_equal(slopes, [0, 1, 1, 1, 0])
    assert jnp.isnan(ratios.clamp(jnp.nan, -2.0, 2.0))


def test_token_ratio_is_finite_with_no_gradient_beyond_the_bound() -> None:
    logprobs = jnp.array([1e4, -1e4, 0.5])
    gradient = jax.grad(lambda x: ratios.token(x, jnp.zeros(3)).sum())(logprobs)
    np.testing.assert_allclose(ratios.token(logprobs, jnp.zeros(3)), np.exp([20, -20, 0.5]), rtol=1e-5)
    np.testing.assert_allclose(gradient, [0, 0, np.exp(0.5)], rtol=1e-6)


def test_masked_tokens_have_ratio_one_and_no_gradient() -> None:
    for ratio in (ratios.token, ratios.sequence, ratios.sequence_straight_through, ratios.sequence_sum):
        value, gradient = jax.value_and_grad(lambda x, f=ratio: f(x, OLD, where=WHERE).sum())(LOGPROBS)
        assert jnp.isfinite(value) and gradient[0, 3] == 0 and jnp.isfinite(gradient).all()


def test_the_old_policy_is_a_constant() -> None:
    gradient = jax.grad(lambda old: ratios.token(LOGPROBS, old, where=WHERE).sum())(OLD)
    np.testing.assert_array_equal(gradient, np.zeros((1, 4)))


def test_sequence_forms_agree_in_value_and_in_the_gradient_of_a_mean() -> None:
    def total(x: jax.Array, ratio: Ratio) -> jax.Array:
        return jnp.where(WHERE, ratio(x, OLD, where=WHERE), 0).sum()

    derivative = jax.value_and_grad(total)
    value, gradient = derivative(LOGPROBS, ratios.sequence_straight_through)
    other_value, other_gradient = derivative(LOGPROBS, ratios.sequence)
    np.testing.assert_allclose(value, 3 * np.exp(0.5), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.exp(0.5) * np.asarray(WHERE), rtol=1e-6)
    np.testing.assert_allclose([other_value, *other_gradient[0]], [value, *gradient[0]], rtol=1e-6)


def test_sequence_ratio_is_bounded_above() -> None:
    value, gradient = jax.value_and_grad(lambda x: ratios.sequence(x, jnp.zeros(2)).sum())(jnp.array([1e4, 1e4]))
    np.testing.assert_allclose(value, 2 * np.exp(10), rtol=1e-5)
    np.testing.assert_array_equal(gradient, [0, 0])


def test_the_geometric_ratio_clips_each_token_on_the_pessimistic_side() -> None:
    d, signs = jnp.array([[1.0, -1.0, 0.1, 5.0]]), jnp.array([[1.0, 1.0, -1.0, 1.0]])
    value, gradient = jax.value_and_grad(lambda x: ratios.geometric(x, jnp.zeros((1, 4)), signs, where=WHERE)[0, 0])(d)
    np.testing.assert_allclose(value, np.exp((0.4 - 1.0 + 0.1) / 3), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0, value / 3, value / 3, 0]], rtol=1e-6)


def test_the_sequence_sum_is_the_product_of_token_ratios_within_bounds() -> None:
    np.testing.assert_allclose(ratios.sequence_sum(LOGPROBS, OLD, where=WHERE), np.full((1, 4), np.exp(1.5)), rtol=1e-6)
    np.testing.assert_allclose(ratios.bounded_sum(LOGPROBS, OLD + 99, where=WHERE), np.full((1, 4), 1e-8), rtol=1e-5)
