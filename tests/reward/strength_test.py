"""Strengths of an ensemble, the losses that use them, and MetaRM's two-level step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.reward import bradley_terry, strength

RNG = np.random.default_rng(0)
REWARDS = jnp.asarray(RNG.normal(size=(5, 2)), jnp.float32)
STRENGTHS = jnp.array([1.0, -0.5, 0.2, -2.0, 0.0])


def test_an_ensemble_that_agrees_has_no_spread():
    found = strength.preference_strength(jnp.repeat(REWARDS[..., None], 10, -1))
    np.testing.assert_allclose(found.mean, REWARDS[:, 0] - REWARDS[:, 1], rtol=1e-5)
    np.testing.assert_allclose(found.std, 0, atol=1e-6)


def test_strengths_carry_no_gradient():
    total = lambda r: strength.preference_strength(r).mean.sum()  # noqa: E731
    np.testing.assert_array_equal(jax.grad(total)(REWARDS[..., None]), 0)
    slope = jax.grad(lambda s: strength.secrets_rlhf2(REWARDS, s, flip_below=0.0))(STRENGTHS)
    np.testing.assert_array_equal(slope, 0)


def test_the_adaptive_margin_is_bradley_terrys_margin():
    found = strength.secrets_rlhf2(REWARDS, STRENGTHS, epsilon=0.1, reduce=None)
    wanted = bradley_terry.bradley_terry_rm(REWARDS, margin=STRENGTHS, epsilon=0.1, reduce=None)
    np.testing.assert_array_equal(found, wanted)


def test_flipping_exchanges_the_responses_of_weak_pairs():
    found = strength.secrets_rlhf2(REWARDS, STRENGTHS, adaptive_margin=False, flip_below=0.0, reduce=None)
    swapped = jnp.where(STRENGTHS[:, None] < 0, REWARDS[:, ::-1], REWARDS)
    np.testing.assert_allclose(found, bradley_terry.bradley_terry_rm(swapped, reduce=None), rtol=1e-6)


def test_all_parts_together_ask_the_flipped_pair_for_the_size_of_the_strength():
    probability = jnp.full(5, 0.8)
    found = strength.secrets_rlhf2(REWARDS, STRENGTHS, probability, flip_below=0.0, reduce=None)
    d = np.asarray(REWARDS[:, 0] - REWARDS[:, 1])
    z = np.where(STRENGTHS < 0, -d - np.abs(STRENGTHS), d - STRENGTHS)
    np.testing.assert_allclose(found, 0.8 * np.logaddexp(0, -z) + 0.2 * np.logaddexp(0, z), rtol=1e-5)


def test_metarm_at_a_tie_is_flat():
    value, slope = jax.value_and_grad(strength.metarm_difference)(jnp.zeros(4))
    np.testing.assert_allclose(value, 2 / 16 * 6 / 2)
    np.testing.assert_array_equal(slope, 0)


def test_a_single_response_cannot_be_told_apart():
    assert strength.metarm_difference(jnp.array([3.0])) == 0


def test_the_two_level_step_is_taken_at_the_climbed_parameters():
    loss, difference = lambda p: jnp.square(p["x"]).sum(), lambda p: p["x"].sum()
    value, slope = strength.metarm_gradient(loss, difference, eta=0.5)({"x": jnp.array([1.0, 2.0])})
    np.testing.assert_allclose(value, 1.5**2 + 2.5**2)
    np.testing.assert_allclose(slope["x"], [3.0, 5.0])


def test_shapes_are_named():
    with pytest.raises(errors.UserError, match=r"ensemble_rewards has shape \(3, 4\): strengths want \[..., 2, M\]"):
        strength.preference_strength(jnp.zeros((3, 4)))
    with pytest.raises(errors.UserError, match="epsilon is the rate"):
        strength.secrets_rlhf2(REWARDS, STRENGTHS, epsilon=0.6)
