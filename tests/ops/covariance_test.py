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
