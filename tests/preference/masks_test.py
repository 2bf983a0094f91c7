"""SparsePO and MaPO: masks that weigh nothing, equal activations, layers, wrong shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.preference import masks

RNG = np.random.default_rng(0)
POLICY, REFERENCE = -RNG.exponential(1.0, (2, 3, 2, 4)).astype(np.float32)
KL, REWARD_MASKS, KL_MASKS = RNG.random((3, 3, 2, 4)).astype(np.float32)
WHERE = np.arange(4) < RNG.integers(1, 5, (3, 2, 1))


def loss(reward_masks=REWARD_MASKS, kl_masks=KL_MASKS, **keywords):
    return masks.sparsepo(POLICY, KL, jnp.asarray(reward_masks), jnp.asarray(kl_masks), REFERENCE, **keywords)


def test_by_hand_with_norms():
    u, k = (np.where(WHERE, x, 0).sum(-1) for x in (REWARD_MASKS * (POLICY - REFERENCE), KL_MASKS * KL))
    z = 0.1 * (u + k)
    sparsity = 0.01 * np.where(WHERE, REWARD_MASKS, 0).sum((1, 2)) + 0.001 * np.where(WHERE, KL_MASKS, 0).sum((1, 2))
    expected = np.logaddexp(0, z[:, 1] - z[:, 0]) + sparsity
    np.testing.assert_allclose(loss(l1_reward=0.01, l1_kl=0.001, where=WHERE, reduce=None), expected, rtol=1e-5)


def test_the_norm_does_not_move_a_mask_of_zero():
    slope = jax.grad(lambda m: masks.l1(m).sum())(jnp.array([[[0.0, 1.0], [0.0, 2.0]]]))
    np.testing.assert_array_equal(slope, [[[0, 1], [0, 1]]])


def test_a_masked_token_that_is_impossible_is_invisible():
    policy = np.where(WHERE, POLICY, -np.inf)
    arrays = jnp.asarray(policy), KL, REWARD_MASKS, KL_MASKS, REFERENCE
    value, slope = jax.value_and_grad(lambda *a: masks.sparsepo(*a, where=WHERE), argnums=(0, 2))(*arrays)
    np.testing.assert_allclose(value, loss(where=WHERE), rtol=1e-6)
    assert all(np.isfinite(x).all() for x in slope)


def test_equal_activations_weigh_a_response_whole():
    activations, where = (
        np.array([[3.0, 3.0, 9.0], [1.0, 7.0, 7.0]]),
        np.array([[True, True, False], [True, False, False]]),
    )
    np.testing.assert_array_equal(masks.mapo_activation_mask(activations, where=where), [[1, 1, 0], [1, 0, 0]])


def test_standardising_first_changes_nothing():
    a = RNG.normal(size=(2, 5))
    z = (a - a.mean(-1, keepdims=True)) / a.std(-1, ddof=1, keepdims=True)
    np.testing.assert_allclose(masks.mapo_activation_mask(z), masks.mapo_activation_mask(a), atol=1e-6)


def test_layers_are_averaged():
    states, where = RNG.normal(size=(3, 2, 4, 2, 6)), jnp.asarray(WHERE)
    found = masks.state_masks(states, where)
    one, two = (masks.state_masks(states[..., i, :], where) for i in (0, 1))
    np.testing.assert_allclose(found, (one + two) / 2, atol=1e-6)


def test_mapo_has_the_gradient_of_a_constant_mask():
    logits, reference = RNG.normal(size=(2, 3, 2, 4, 5)).astype(np.float32)
    tokens, states = RNG.integers(0, 5, (3, 2, 4)), RNG.normal(size=(3, 2, 4, 6)).astype(np.float32)
    slope = jax.grad(lambda s: rlx.mapo(logits, reference, tokens, s, where=WHERE))(jnp.asarray(states))
    np.testing.assert_array_equal(slope, 0)


def test_wrong_shapes_are_named():
    with pytest.raises(errors.UserError, match=r"reference_states has shape \(3, 2, 6\), but tokens has \(3, 2, 4\)"):
        masks.mapo(jnp.zeros((3, 2, 4, 5)), jnp.zeros((3, 2, 4, 5)), jnp.zeros((3, 2, 4), int), jnp.zeros((3, 2, 6)))
    with pytest.raises(errors.UserError, match="logprobs has shape .*: sparsepo wants"):
        masks.sparsepo(*jnp.zeros((5, 3, 3, 4)))
