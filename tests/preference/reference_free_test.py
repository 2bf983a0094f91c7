"""Losses without a reference: SimPO's margin, the shapes of AlphaPO, empty responses."""

import jax
import jax.numpy as jnp
import numpy as np

from rlx.preference import links, reference_free

POLICY, LENGTHS = jnp.array([[-3.0, -4.0], [-2.0, -9.0]]), jnp.array([[3, 5], [1, 4]])


def test_simpo_margin_is_absolute():
    """gamma is subtracted from the scaled margin, whatever beta is."""
    z = 2.0 * (POLICY / LENGTHS) @ np.array([1.0, -1.0]) - 0.7
    found = reference_free.simpo(POLICY, LENGTHS, beta=2.0, gamma=0.7, epsilon=0.1, reduce=None)
    np.testing.assert_allclose(found, 0.9 * np.logaddexp(0, -z) + 0.1 * np.logaddexp(0, z), rtol=1e-6)


def test_empty_responses_are_finite():
    value, slope = jax.value_and_grad(reference_free.simpo)(POLICY, jnp.zeros((2, 2), int))
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_alphapo_approaches_simpo_as_alpha_goes_to_zero():
    """From both sides, and the same loss at 0 itself."""
    keywords = {"beta": 2.0, "gamma": 0.5}
    simpo = reference_free.simpo(POLICY, LENGTHS, **keywords)
    for alpha in (1e-4, -1e-4, 0.0):
        found = reference_free.alphapo_reward_shape(POLICY, LENGTHS, alpha=alpha, **keywords)
        np.testing.assert_allclose(found, simpo, rtol=1e-3 * bool(alpha))


def test_reference_free_losses_take_a_link():
    margin = np.array(POLICY) @ np.array([1.0, -1.0])
    found = reference_free.dpo_reference_free(POLICY, beta=0.5, link=links.hinge, reduce=None)
    np.testing.assert_allclose(found, np.maximum(0, 1 - 0.5 * margin))


def test_alphapo_of_impossible_responses_is_a_number(float64):
    run = lambda p: reference_free.alphapo_reward_shape(p, jnp.ones(p.shape), alpha=1.0, reduce=None)  # noqa: E731
    units = float64(lambda: np.asarray(run(jnp.array([[-1.0, -1e4], [-1e4, -1.0]]))))
    assert units[0] == 0 and units[1] > 1e300 and np.isfinite(units).all()
