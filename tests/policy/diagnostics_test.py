"""Diagnostics: means over real tokens, global over shards."""

import jax
import jax.numpy as jnp
import numpy as np

from rlx.policy import diagnostics, regularize

RATIO = jnp.array([[1.5, 0.5, 1.0, jnp.nan], [9.0, 9.0, 0.1, 0.1]])
ADVANTAGES = jnp.array([[1.0], [-1.0]])
WHERE = jnp.array([[True, True, True, False], [True, True, True, True]])


def test_clip_fractions_count_where_the_gradient_is_gone() -> None:
    np.testing.assert_allclose(diagnostics.clip_fraction(RATIO, ADVANTAGES, where=WHERE), 3 / 7, rtol=1e-6)
    np.testing.assert_allclose(diagnostics.dual_clip_fraction(RATIO, ADVANTAGES, where=WHERE), 2 / 7, rtol=1e-6)


def test_approximate_kl_estimates_old_from_new() -> None:
    logprobs, old = jnp.array([-3.0, -1.0, 1e3]), jnp.array([-1.0, -2.0, 0.0])
    np.testing.assert_allclose(diagnostics.approximate_kl(logprobs, old), (2 - 1 - 20) / 3, rtol=1e-6)
    where = jnp.array([True, True, False])
    options = {"estimator": regularize.absolute, "where": where}
    np.testing.assert_allclose(diagnostics.approximate_kl(logprobs, old, **options), 1.5)
    gradient = jax.grad(lambda x: diagnostics.approximate_kl(x, old))(logprobs)
    np.testing.assert_array_equal(gradient, np.zeros(3))


def test_fractions_are_global_over_shards() -> None:
    def one(ratio, advantages, where):
        shared = {"where": where, "axis_name": "data"}
        return diagnostics.clip_fraction(ratio, advantages, **shared), diagnostics.selected_fraction(where, **shared)

    fractions = jax.pmap(one, axis_name="data")(RATIO, ADVANTAGES, WHERE)
    np.testing.assert_allclose(fractions, [[3 / 7, 3 / 7], [1, 1]], rtol=1e-6)
