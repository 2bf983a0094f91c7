"""TDPO: the direction of the KL, which of them carries gradient, impossible and masked tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import token_level

RNG = np.random.default_rng(0)
POLICY, REFERENCE = (jnp.asarray(RNG.normal(size=(3, 2, 4, 5)), jnp.float32) for _ in range(2))
TOKENS = jnp.asarray(RNG.integers(0, 5, (3, 2, 4)))
WHERE = jnp.asarray(np.arange(4) < RNG.integers(1, 5, (3, 2, 1)))


def by_hand():
    p, q = (np.asarray(jax.nn.log_softmax(x), np.float64) for x in (POLICY, REFERENCE))
    kl = (np.exp(q) * (q - p)).sum(-1)
    d = np.take_along_axis(p - q, np.asarray(TOKENS)[..., None], -1)[..., 0]
    return (d * WHERE).sum(-1), (kl * WHERE).sum(-1)


def test_the_kl_runs_from_the_reference_to_the_policy():
    found = token_level.sequence_scores(POLICY, REFERENCE, TOKENS, where=WHERE)
    for array, expected in zip(found, by_hand(), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)


def test_both_versions_by_hand():
    d, kl = by_hand()
    for loss, alpha in ((token_level.tdpo1, 1.0), (token_level.tdpo, 0.5)):
        z = 0.1 * (d[:, 0] - d[:, 1] - alpha * (kl[:, 1] - kl[:, 0]))
        found = loss(POLICY, REFERENCE, TOKENS, where=WHERE, reduce=None)
        np.testing.assert_allclose(found, np.logaddexp(0, -z), rtol=1e-5)


def test_only_tdpo1_pulls_on_the_kl_of_the_chosen_response():
    """With alpha 1 the two have one value; only in the gradient of the chosen response do they differ."""
    one = jax.grad(lambda p: token_level.tdpo1(p, REFERENCE, TOKENS))(POLICY)
    two = jax.grad(lambda p: token_level.tdpo(p, REFERENCE, TOKENS, alpha=1.0))(POLICY)
    np.testing.assert_allclose(one[:, 1], two[:, 1], atol=1e-7)
    assert np.abs(one[:, 0] - two[:, 0]).max() > 1e-4


def test_tokens_that_the_policy_rules_out_leave_the_reference():
    tokens = jnp.where(TOKENS == 3, 0, TOKENS)
    policy = POLICY.at[..., 3].set(-jnp.inf)
    value, slope = jax.value_and_grad(token_level.tdpo)(policy, REFERENCE, tokens, where=WHERE)
    assert np.isfinite(value) and np.isfinite(slope).all()
    _, kl = token_level.sequence_scores(policy, REFERENCE, tokens)
    keep = np.array([0, 1, 2, 4])
    _, expected = token_level.sequence_scores(POLICY[..., keep], REFERENCE[..., keep], jnp.zeros_like(tokens))
    np.testing.assert_allclose(kl, expected, rtol=1e-5)


def test_an_empty_response_counts_and_an_empty_pair_does_not():
    where = WHERE.at[0, 0].set(False).at[1].set(False)
    losses = token_level.tdpo(POLICY, REFERENCE, TOKENS, where=where, reduce=None)
    assert losses[0] > 0 and losses[1] == 0
    np.testing.assert_allclose(token_level.tdpo(POLICY, REFERENCE, TOKENS, where=where), losses.sum() / 2, rtol=1e-6)


def test_wrong_shapes_are_named():
    with pytest.raises(errors.UserError, match=r"tokens has shape \(3, 1, 4\): tdpo wants \[..., 2, T\]"):
        token_level.tdpo(POLICY[:, :1], REFERENCE[:, :1], TOKENS[:, :1])
    with pytest.raises(errors.UserError, match=r"the logits without their last axis has shape \(3, 2, 3\), but tokens"):
        token_level.tdpo(POLICY[:, :, 1:], REFERENCE[:, :, 1:], TOKENS)
