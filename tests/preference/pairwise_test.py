"""Pairwise losses: what distinguishes each, and the errors of wrong arrays and hyperparameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import links, pairwise

POLICY, REFERENCE = jnp.array([[-3.0, -4.0], [-2.0, -9.0]]), jnp.array([[-3.5, -3.0], [-2.0, -8.0]])
LENGTHS = jnp.array([[3, 5], [1, 4]])


@pytest.mark.parametrize("loss", [pairwise.dpo, pairwise.cdpo, pairwise.rdpo, pairwise.ipo])
def test_wrong_shapes_are_named(loss):
    with pytest.raises(errors.UserError, match=r"reference_logps has shape \(2, 3\), but policy_logps"):
        loss(POLICY, jnp.zeros((2, 3)))
    with pytest.raises(errors.UserError, match=r"policy_logps has shape \(2, 3\): a pairwise loss wants \[..., 2\]"):
        loss(jnp.zeros((2, 3)), jnp.zeros((2, 3)))


def test_cdpo_stops_where_the_model_is_as_sure_as_the_labels():
    """Its optimum is at sigma(beta m) = 1 - epsilon."""
    margin = np.log(0.8 / 0.2) / 0.5
    policy = jnp.array([margin, 0.0])
    slope = jax.grad(lambda p: pairwise.cdpo(p, jnp.zeros(2), beta=0.5, epsilon=0.2))(policy)
    np.testing.assert_allclose(slope, 0.0, atol=1e-7)
    assert pairwise.rdpo(policy, jnp.zeros(2), beta=0.5, epsilon=0.2) < pairwise.dpo(policy, jnp.zeros(2), beta=0.5)


def test_ipo_has_two_length_conventions():
    literal = pairwise.ipo(POLICY, REFERENCE, tau=0.5, reduce=None)
    np.testing.assert_allclose(literal, [(1.5 - 1) ** 2, (1.0 - 1) ** 2], atol=1e-6)
    averaged = pairwise.ipo(POLICY, REFERENCE, LENGTHS, tau=0.5, length_normalize=True, reduce=None)
    np.testing.assert_allclose(averaged, [(0.5 / 3 + 1 / 5 - 1) ** 2, (1 / 4 - 1) ** 2], rtol=1e-6)
    with pytest.raises(errors.UserError, match="ipo with length_normalize=True needs lengths"):
        pairwise.ipo(POLICY, REFERENCE, length_normalize=True)
    with pytest.raises(errors.UserError, match="tau must be above 0, got 0"):
        pairwise.ipo(POLICY, REFERENCE, tau=0)


def test_ipo_takes_a_traced_tau():
    traced = jax.jit(lambda tau: pairwise.ipo(POLICY, REFERENCE, tau=tau))(0.5)
    np.testing.assert_allclose(traced, pairwise.ipo(POLICY, REFERENCE, tau=0.5), rtol=1e-6)


def test_discopop_needs_a_width():
    with pytest.raises(errors.UserError, match="tau must be above 0, got 0"):
        pairwise.discopop(POLICY, REFERENCE, tau=0)


def test_length_normalisation_takes_labels_and_links():
    h = (np.array(POLICY - REFERENCE) / LENGTHS) @ np.array([1.0, -1.0])
    parts = {"beta": 1.0, "link": links.hinge, "label": 0.7, "reduce": None}
    found = pairwise.dpo_length_normalized(POLICY, REFERENCE, LENGTHS, **parts)
    np.testing.assert_allclose(found, 0.7 * np.maximum(0, 1 - h) + 0.3 * np.maximum(0, 1 + h), rtol=1e-6)
    with pytest.raises(errors.UserError, match=r"lengths has shape \(2, 3\)"):
        pairwise.dpo_length_normalized(POLICY, REFERENCE, jnp.ones((2, 3)))
