"""Smoothed advantages and the temperature of a prompt."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import adaptive


def test_an_outlier_moves_the_smoothed_advantages_by_a_bounded_amount():
    rewards = jnp.array([0.0, 1.0, 2.0, 1e6])
    found = adaptive.adpo_kde_advantage(rewards)[:, 0]
    assert (jnp.diff(found) >= 0).all() and jnp.abs(found).max() < np.log(1e4)
    narrow = adaptive.adpo_kde_advantage(rewards, bandwidth=1e-9, bound=0.2)[:, 0]
    np.testing.assert_allclose(
        narrow, np.log(np.array([0.2, 0.375, 0.625, 0.8]) / (1 - np.array([0.2, 0.375, 0.625, 0.8]))), rtol=1e-4
    )


def test_equal_rewards_have_no_advantage_and_masked_ones_do_not_count():
    np.testing.assert_allclose(adaptive.adpo_kde_advantage(jnp.full(5, 3.0)), 0, atol=1e-6)
    rewards, where = jnp.array([1.0, jnp.nan, 4.0, 2.0]), jnp.array([True, False, True, True])
    found = adaptive.adpo_kde_advantage(rewards, where=where)[:, 0]
    np.testing.assert_allclose(found[where], adaptive.adpo_kde_advantage(rewards[where])[:, 0], rtol=1e-6)
    assert found[1] == 0


def test_the_temperature_grows_with_entropy_and_with_poor_rewards_of_a_sure_policy():
    entropy = jnp.array([0.0, 0.0, 1.0, 1.0])[:, None, None] * jnp.log(8.0)
    tau = adaptive.adpo_adaptive_tau(entropy, jnp.array([[1.0], [0.0], [1.0], [0.0]]), vocab_size=8)
    np.testing.assert_allclose(tau, [1.0, 2.0, 1.5, 1.5], rtol=1e-6)
    same = adaptive.adpo_adaptive_tau(entropy, jnp.ones((4, 1)), vocab_size=8, tau_max=1.4)
    np.testing.assert_allclose(same, [1.4, 1.4, 1.4, 1.4], rtol=1e-6)


def test_prompts_without_tokens_set_no_extreme():
    entropy, rewards = jnp.zeros((3, 2, 2)), jnp.array([[1.0, 1.0], [0.0, 99.0], [50.0, 50.0]])
    where = jnp.array([[[True, True], [True, False]], [[True, True], [False, False]], [[False] * 2] * 2])
    tau = adaptive.adpo_adaptive_tau(entropy, rewards, vocab_size=8, where=where)
    np.testing.assert_allclose(tau[:2], [1.0, 2.0], rtol=1e-6)


def test_wrong_settings_are_named():
    with pytest.raises(errors.UserError, match="vocab_size - 1 must be above 0, got 0"):
        adaptive.adpo_adaptive_tau(jnp.zeros((1, 1, 1)), jnp.zeros((1, 1)), vocab_size=1)
    with pytest.raises(errors.UserError, match="the entropy without its last axis has shape"):
        adaptive.adpo_adaptive_tau(jnp.zeros((2, 1, 1)), jnp.zeros((3, 1)), vocab_size=8)
    with pytest.raises(errors.UserError, match="bandwidth must be above 0"):
        adaptive.adpo_kde_advantage(jnp.zeros(3), bandwidth=0.0)
