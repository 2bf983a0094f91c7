"""LD-DPO and WPO: both sides of the padding, weights that are constants and bounded, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import links, weighted_tokens

RNG = np.random.default_rng(0)
POLICY, REFERENCE, RENYI2 = jnp.asarray(-RNG.exponential(1.0, (3, 3, 2, 4)), jnp.float32)
LENGTHS = np.array([[4, 2], [1, 3], [3, 3]])
WHERE = np.arange(4) < LENGTHS[..., None]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_ld_dpo_by_hand(alpha):
    d = np.where(WHERE, POLICY - REFERENCE, 0)
    weights = np.where(np.arange(4) < LENGTHS.min(-1)[:, None, None], 1, alpha)
    s = 0.1 * (d * weights).sum(-1)
    found = weighted_tokens.ld_dpo(POLICY, REFERENCE, alpha=alpha, where=WHERE, reduce=None)
    np.testing.assert_allclose(found, np.logaddexp(0, s[:, 1] - s[:, 0]), rtol=1e-5)


def test_a_tail_that_is_cut_off_may_be_impossible():
    tail = WHERE & (np.arange(4) >= LENGTHS.min(-1)[:, None, None])
    policy = jnp.where(tail, -jnp.inf, POLICY)
    value, slope = jax.value_and_grad(weighted_tokens.ld_dpo)(policy, REFERENCE, alpha=0.0, where=WHERE)
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_wpo_by_hand():
    w = np.exp([[np.mean((POLICY + RENYI2)[b, k, : LENGTHS[b, k]]) for k in (0, 1)] for b in range(3)]).prod(-1)
    s = 0.1 * np.where(WHERE, POLICY - REFERENCE, 0).sum(-1)
    found = weighted_tokens.wpo(POLICY, RENYI2, REFERENCE, where=WHERE, reduce=None)
    np.testing.assert_allclose(found, w * np.logaddexp(0, s[:, 1] - s[:, 0]), rtol=1e-5)


def test_weights_are_bounded_and_have_no_gradient():
    def loss(policy, renyi2, **keywords):
        return weighted_tokens.wpo(policy, renyi2, REFERENCE, where=WHERE, link=links.hinge, **keywords)

    np.testing.assert_array_equal(jax.grad(loss, argnums=1)(POLICY, RENYI2), 0)
    plain = links.hinge(0.1 * jnp.where(WHERE, POLICY - REFERENCE, 0).sum(-1) @ jnp.array([1.0, -1.0])).mean()
    np.testing.assert_allclose(loss(POLICY, 50 - POLICY, maximum=1.0), plain, rtol=1e-5)
    assert np.isfinite(loss(POLICY, 1e4 - POLICY))


def test_wrong_shapes_are_named():
    with pytest.raises(errors.UserError, match=r"logprobs has shape \(3, 1, 4\): ld_dpo wants \[..., 2, T\]"):
        weighted_tokens.ld_dpo(POLICY[:, :1], REFERENCE[:, :1])
    with pytest.raises(errors.UserError, match="renyi2 has shape .* they must agree"):
        weighted_tokens.wpo(POLICY, RENYI2[..., :3], REFERENCE)
