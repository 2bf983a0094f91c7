"""Advantages of tokens: against loops, special cases, holes in the mask, errors."""

import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors, numerics
from rlx.policy import returns

REWARDS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
VALUES = REWARDS[::-1].copy()


def _gae_by_loop(rewards: np.ndarray, values: np.ndarray, where: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    result = np.zeros(rewards.shape)
    for row in range(rewards.shape[0]):
        following, accumulated = 0.0, 0.0
        for t in np.flatnonzero(where[row])[::-1]:
            accumulated = rewards[row, t] + gamma * following - values[row, t] + gamma * lam * accumulated
            result[row, t], following = accumulated, values[row, t]
    return result


@pytest.mark.parametrize(("gamma", "lam"), [(0.9, 0.8), (1.0, 1.0), (0.9, 0.0)])
def test_gae_steps_over_holes(gamma: float, lam: float) -> None:
    rng = np.random.default_rng(1)
    where = np.array([[1, 1, 0, 0, 1, 1, 0], [0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]], bool)
    rewards, values = rng.normal(size=(2, 3, 7)).astype(np.float32)
    dirty = [jnp.where(where, x, jnp.nan) for x in (rewards, values)]
    gae = returns.gae_advantage(*dirty, gamma=gamma, lam=lam, where=jnp.asarray(where))
    expected = _gae_by_loop(rewards, values, where, gamma, lam)
    np.testing.assert_allclose(gae.advantages, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gae.returns, np.where(where, expected + values, 0), rtol=1e-4, atol=1e-6)


def test_monte_carlo_gae_is_reward_to_go_minus_value_and_whitens() -> None:
    rewards, values = jnp.asarray(REWARDS), jnp.asarray(REWARDS[::-1].copy())
    gae = returns.gae_advantage(rewards, values)
    np.testing.assert_allclose(gae.returns, np.cumsum(REWARDS[:, ::-1], -1)[:, ::-1], rtol=1e-4, atol=1e-5)
    whitened = numerics.whiten(gae.advantages)
    np.testing.assert_allclose([whitened.mean(), whitened.std(ddof=1)], [0, 1], atol=1e-5)


def test_extended_gae_of_finished_responses_is_gae() -> None:
    where = np.arange(5) < np.array([[5], [3], [0]])
    ended, cut = (returns.tppo_egae_advantage(REWARDS, VALUES, np.full(3, x), where=where) for x in (1.0, 0.0))
    np.testing.assert_array_equal(ended.advantages, returns.gae_advantage(REWARDS, VALUES, lam=0.95, where=where)[0])
    # of a response that was cut, the last step only has its reward: its value stands on both sides
    np.testing.assert_allclose(cut.advantages[[0, 1], [4, 2]], REWARDS[[0, 1], [4, 2]], rtol=1e-5)
    np.testing.assert_array_equal(cut.advantages[2], 0)


def test_a_return_ends_at_a_hole_if_reset() -> None:
    where = jnp.array([[True, False, True, True]])
    rewards = jnp.array([[1.0, jnp.nan, 2.0, 4.0]])
    np.testing.assert_array_equal(returns.reward_to_go(rewards, gamma=0.5, where=where), [[2, 0, 4, 4]])
    np.testing.assert_array_equal(returns.reward_to_go(rewards, gamma=0.5, reset=True, where=where), [[1, 0, 4, 4]])


def test_reinforce_plus_plus_is_whitened_over_the_batch() -> None:
    where = np.arange(5) < np.array([[5], [2], [0]])
    actual = np.asarray(rlx.reinforce_plus_plus_advantage(REWARDS, where=where))[where]
    np.testing.assert_allclose([actual.mean(), actual.std(ddof=1)], [0, 1], atol=1e-5)


def test_remax_subtracts_the_greedy_reward_of_the_prompt() -> None:
    rewards = np.stack([REWARDS, VALUES])
    actual = rlx.remax_advantage(rewards, jnp.array([0.5, -1.0]))
    to_go = np.cumsum(rewards[..., ::-1], -1)[..., ::-1]
    np.testing.assert_allclose(actual, to_go - np.array([0.5, -1.0])[:, None, None], rtol=1e-4, atol=1e-5)


def test_weighted_samples_are_positive_and_negative_ones() -> None:
    outcomes = np.zeros((2, 3), np.float32)
    outcomes[0, 2] = 1
    positive, negative = (rlx.psr_nsr_advantage(outcomes, mode=mode) for mode in ("positive", "negative"))
    weighted = rlx.psr_nsr_advantage(outcomes, positive_weight=0.25)
    np.testing.assert_allclose(weighted, 0.25 * positive + negative)
    np.testing.assert_array_equal(positive[1], 0)
    np.testing.assert_array_equal(negative[0], 0)


def test_errors() -> None:
    with pytest.raises(errors.UserError, match="values has shape"):
        returns.gae_advantage(jnp.ones((1, 2)), jnp.ones((1, 3)))
    with pytest.raises(errors.UserError, match="finished"):
        returns.gae_advantage(REWARDS, VALUES, np.ones(4))
    with pytest.raises(errors.UserError, match="baseline_rewards"):
        rlx.remax_advantage(np.stack([REWARDS, VALUES]), np.ones(3))
    with pytest.raises(errors.UserError, match="Did you mean 'weighted'"):
        rlx.psr_nsr_advantage(REWARDS, mode="weigted")
