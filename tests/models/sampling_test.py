"""Inverts a distribution: frequencies are right, and nothing impossible is drawn."""

import jax
import jax.numpy as jnp
import numpy as np

from rlx.models.sampling import invert


def test_invert_has_the_frequencies_of_the_distribution():
    """A regular grid of uniform numbers gives each token its probability, to one part of the grid."""
    rng = np.random.default_rng(0)
    logits = np.where(rng.random(300) < 0.2, -np.inf, rng.normal(size=300)).astype(np.float32)
    grid = (np.arange(5000) + 0.5) / 5000
    counts = np.bincount(invert(jnp.exp(jnp.tile(logits, (5000, 1))), jnp.asarray(grid)), minlength=300)
    np.testing.assert_allclose(counts / 5000, jax.nn.softmax(logits), atol=2 / 5000)


def test_the_largest_uniform_number_is_no_impossible_token():
    weights = jnp.zeros((1, 300)).at[0, 7].set(1.0).at[0, 200].set(1.0)
    last = np.nextafter(np.float32(1), np.float32(0))
    np.testing.assert_array_equal(invert(weights, jnp.array([last])), [200])
    np.testing.assert_array_equal(invert(weights, jnp.array([0.0])), [7])
