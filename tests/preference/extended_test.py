"""DPO with a second term: what has a gradient, whose normaliser is whose, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import extended, links, pairwise

POLICY, REFERENCE = jnp.array([[-3.0, -4.0], [-2.0, -9.0], [-1.0, -1.5]]), jnp.full((3, 2), -2.5)
ONLINE = jnp.array([[-1.0, -3.0], [-2.0, -2.5], [-6.0, -4.0]])


def test_the_online_term_has_the_gradient_of_the_reverse_kl(float64):
    """In expectation over the policy's own samples, enumerated."""

    def check():
        rng = np.random.default_rng(0)
        logits, reference = jnp.asarray(rng.normal(size=5)), jax.nn.log_softmax(jnp.asarray(rng.normal(size=5)))
        probs = jax.nn.softmax(logits)
        pairs = jnp.zeros((5, 2))

        def surrogate(logits):
            online = jax.nn.log_softmax(logits)[:, None], reference[:, None]
            return (probs * extended.hypo(pairs, pairs, *online, kl_coef=1.0, reduce=None)).sum()

        def kl(logits):
            logps = jax.nn.log_softmax(logits)
            return (jnp.exp(logps) * (logps - reference)).sum()

        np.testing.assert_allclose(jax.grad(surrogate)(logits), jax.grad(kl)(logits), rtol=1e-9, atol=1e-12)

    float64(check)


def test_samples_of_a_masked_pair_go_along():
    where = jnp.array([[True, True], [True, False], [True, True]])
    units = extended.hypo(POLICY, REFERENCE, ONLINE.at[1].set(jnp.nan), ONLINE - 1, where=where, reduce=None)
    assert np.isfinite(units).all() and units[1] == 0


def test_a_rationale_in_the_form_of_the_paper():
    said = jnp.array([-1.0, -2.0, -6.0])
    found = extended.rationale_dpo(POLICY, REFERENCE, said, gamma=0.5, link=links.linear)
    np.testing.assert_allclose(found, pairwise.dpo(POLICY, REFERENCE) + 1.5, rtol=1e-6)


def test_sets_of_pairs_are_weighted_by_their_share_of_the_loss():
    ids = jnp.array([0, 1, 0])
    each = pairwise.dpo(POLICY, REFERENCE, beta=1.0, reduce=None)
    means = np.array([(each[0] + each[2]) / 2, each[1]])
    found = extended.bidedpo_loss_balancing(POLICY, REFERENCE, ids, beta=1.0)
    np.testing.assert_allclose(found, (means**2).sum() / means.sum(), rtol=1e-6)
    alone = extended.bidedpo_loss_balancing(POLICY, REFERENCE, jnp.zeros(3, int), beta=1.0)
    np.testing.assert_allclose(alone, each.mean(), rtol=1e-6)


def test_wrong_shapes_are_named():
    with pytest.raises(errors.UserError, match=r"the pairs has shape \(3,\), but rationale_logps has shape \(2,\)"):
        extended.rationale_dpo(POLICY, REFERENCE, jnp.zeros(2))
    with pytest.raises(errors.UserError, match=r"reference_online_logps has shape \(3, 3\), but policy_online_logps"):
        extended.hypo(POLICY, REFERENCE, ONLINE, jnp.zeros((3, 3)))
    with pytest.raises(errors.UserError, match=r"but policy_online_logps without its last axis has shape \(2,\)"):
        extended.hypo(POLICY, REFERENCE, ONLINE[:2], ONLINE[:2])
    with pytest.raises(errors.UserError, match=r"the pairs has shape \(3,\), but set_ids has shape \(2,\)"):
        extended.bidedpo_loss_balancing(POLICY, REFERENCE, jnp.zeros(2, int))
