"""Losses without a reference: SimPO's margin, the shapes of AlphaPO, odds, and the fine-tuning term's normaliser."""

import jax
import jax.numpy as jnp
import numpy as np

from rlx.preference import reference_free

POLICY, LENGTHS = jnp.array([[-3.0, -4.0], [-2.0, -9.0]]), jnp.array([[3, 5], [1, 4]])


def test_simpo_margin_is_absolute():
    """gamma is subtracted from the scaled margin, whatever beta is."""
    z = 2.0 * (POLICY / LENGTHS) @ np.array([1.0, -1.0]) - 0.7
    found = reference_free.simpo(POLICY, LENGTHS, beta=2.0, gamma=0.7, epsilon=0.1, reduce=None)
    np.testing.assert_allclose(found, 0.9 * np.logaddexp(0, -z) + 0.1 * np.logaddexp(0, z), rtol=1e-6)


def test_empty_responses_are_finite():
    value, slope = jax.value_and_grad(reference_free.simpo)(POLICY, jnp.zeros((2, 2), int))
    assert np.isfinite(value) and np.isfinite(slope).all()
