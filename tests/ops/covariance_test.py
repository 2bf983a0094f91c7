"""Token covariance against numpy, masked and split over devices."""

import jax
import jax.numpy as jnp
import numpy as np

from rlx import ops


def test_equals_numpy_on_the_selected_tokens():
    rng = np.random.default_rng(0)
    logprobs, advantages = rng.normal(size=(2, 3, 4)).astype(np.float32)
    where = rng.random((3, 4)) < 0.6
    x, y = logprobs[where], advantages[where]
    want = np.zeros((3, 4))
    want[where] = (x - x.mean()) * (y - y.mean())
    got = ops.token_covariance(jnp.asarray(logprobs), jnp.asarray(advantages), where=jnp.asarray(where))
    np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_allclose(got.sum() / where.sum(), np.cov(x, y, ddof=0)[0, 1], atol=1e-6)


def test_shards_equal_the_whole_batch():
    rng = np.random.default_rng(0)
    logprobs, advantages = jnp.asarray(rng.normal(size=(2, 4, 5)))
    where = jnp.asarray(rng.random((4, 5)) < 0.6)

    def local(logprobs, advantages, where):
        return ops.token_covariance(logprobs, advantages, where=where, axis_name="shard")

    parts = jax.vmap(local, axis_name="shard")
    np.testing.assert_allclose(
        parts(logprobs, advantages, where),
        ops.token_covariance(logprobs, advantages, where=where),
        atol=1e-6,
    )


def test_the_batch_has_the_moments_of_numpy_and_no_gradient_where_masked():
    rng = np.random.default_rng(1)
    arrays, where = rng.normal(size=(2, 3, 4)).astype(np.float32), rng.random((3, 4)) < 0.6
    x, y = (jnp.asarray(np.where(where, array, np.nan)) for array in arrays)
    got = ops.batch_covariance(x, y, where=where)
    matrix = np.cov(arrays[:, where], ddof=0)
    np.testing.assert_allclose(got.covariance, matrix[0, 1], rtol=1e-5)
    np.testing.assert_allclose([got.variance_logprobs, got.variance_advantages], matrix.diagonal(), rtol=1e-5)
    np.testing.assert_allclose(got.correlation, np.corrcoef(arrays[:, where])[0, 1], rtol=1e-5)
    gradient = jax.grad(lambda x: ops.token_covariance(x, y, where=where).sum())(x)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[~where].any()


def test_the_correlation_with_a_constant_is_zero():
    logprobs = jnp.array([-1.0, -3.0])
    value, gradient = jax.value_and_grad(lambda x: ops.batch_covariance(x, jnp.ones(2)).correlation)(logprobs)
    assert value == 0 and not gradient.any()


LOGITS = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
VALUES = np.array([1.0, -0.5, 0.3, 2.0], np.float32)


def measured(step, size=1e-3):
    """Slope of the entropy along a step, by a central difference in float64."""
    with jax.enable_x64(True):
        ends = [ops.token_entropy(jnp.asarray(LOGITS, float) + s * np.asarray(step, float)) for s in (size, -size)]
        return (ends[0] - ends[1]) / (2 * size)


def test_the_entropy_falls_by_the_covariance_with_any_step():
    for step in (VALUES, *(ops.policy_gradient_step(LOGITS, VALUES, natural=natural) for natural in (False, True))):
        np.testing.assert_allclose(measured(step), -ops.vocabulary_covariance(LOGITS, step), rtol=1e-5)


def test_the_plain_step_is_the_gradient_of_the_expected_value():
    gradient = jax.grad(lambda z: jnp.sum(jax.nn.softmax(z) * VALUES))(LOGITS)
    np.testing.assert_allclose(ops.policy_gradient_step(LOGITS, VALUES), gradient, rtol=1e-5)


def test_discriminators_are_slopes_of_the_entropy_and_sum_to_zero():
    every = ops.discriminators(LOGITS)
    np.testing.assert_allclose(every, -jax.grad(ops.token_entropy)(LOGITS), rtol=1e-5)
    np.testing.assert_allclose(every.sum(), 0, atol=1e-6)
    found = ops.entropy_discriminator(LOGITS, jnp.array(2))
    p = jax.nn.softmax(LOGITS)
    np.testing.assert_allclose(found.sampled, every[2], rtol=1e-6)
    np.testing.assert_allclose(measured(np.eye(4)[2] - p), -found.centred, rtol=1e-5)


def test_impossible_and_masked_positions_are_not_seen():
    logits = jnp.array([[0.5, -jnp.inf, 2.0, 0.0], [jnp.nan] * 4])
    values, where = jnp.array([[1.0, jnp.nan, 0.3, 2.0], [jnp.nan] * 4]), jnp.array([True, False])
    targets = jnp.array([0, 0])

    def total(logits, values):
        found = ops.entropy_discriminator(logits, targets, where=where)
        return (ops.vocabulary_covariance(logits, values, where=where) + found.centred).sum()

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(logits, values)
    kept = np.array([0, 2, 3])
    expected = ops.vocabulary_covariance(LOGITS[kept], VALUES[kept])
    expected += ops.entropy_discriminator(LOGITS[kept], jnp.array(0)).centred
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for gradient in gradients:
        assert np.isfinite(gradient).all() and not gradient[0, 1] and not gradient[1].any()
