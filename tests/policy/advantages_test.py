"""Advantages: hand-made groups, invariances, and GAE against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors, numerics
from rlx.policy import advantages

REWARDS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def test_grpo_by_hand() -> None:
    actual = advantages.grpo_advantage(jnp.array([[1.0, 0.0, 0.0, 1.0]]), epsilon=0.5)
    expected = np.array([0.5, -0.5, -0.5, 0.5]) / (np.std([1, 0, 0, 1], ddof=1) + 0.5)
    assert actual.shape == (1, 4, 1)
    np.testing.assert_allclose(actual[0, :, 0], expected, rtol=1e-6)


def test_population_deviation() -> None:
    actual = advantages.group_normalize(jnp.asarray(REWARDS), ddof=0, epsilon=0.0)
    expected = (REWARDS - REWARDS.mean(-1, keepdims=True)) / REWARDS.std(-1, keepdims=True)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_group_order_does_not_matter() -> None:
    members, prompts = np.array([3, 0, 4, 1, 2]), np.array([2, 0, 1])
    shuffled = advantages.group_normalize(jnp.asarray(REWARDS[prompts][:, members]))
    np.testing.assert_allclose(
        shuffled, np.asarray(advantages.group_normalize(jnp.asarray(REWARDS)))[prompts][:, members], rtol=1e-5
    )


@pytest.mark.parametrize("scale", [True, False])
def test_a_group_sums_to_zero(scale: bool) -> None:
    actual = advantages.group_normalize(jnp.asarray(REWARDS), scale=scale)
    np.testing.assert_allclose(actual.sum(-1), np.zeros(3), atol=1e-5)


def test_dr_grpo_is_leave_one_out_scaled() -> None:
    n = REWARDS.shape[-1]
    others = (REWARDS.sum(-1, keepdims=True) - REWARDS) / (n - 1)
    actual = advantages.grpo_advantage(jnp.asarray(REWARDS), scale=False)[..., 0]
    np.testing.assert_allclose(actual, (REWARDS - others) * (n - 1) / n, rtol=1e-4, atol=1e-6)


def test_ragged_groups_equal_removed_members() -> None:
    where = jnp.array([[True, True, False, True, False]])
    rewards = jnp.where(where, jnp.asarray(REWARDS[:1]), jnp.nan)
    kept = advantages.group_normalize(jnp.asarray(REWARDS[:1][:, np.asarray(where)[0]]))
    actual = advantages.group_normalize(rewards, where=where)
    np.testing.assert_allclose(actual[where], kept[0], rtol=1e-5)
    np.testing.assert_array_equal(actual[~where], 0)


@pytest.mark.parametrize(
    ("singleton", "scale", "expected"), [("raw", True, 3 / 1.5), ("raw", False, 3), ("zero", True, 0)]
)
def test_a_member_without_a_group(singleton: str, scale: bool, expected: float) -> None:
    where = jnp.array([[False, True]])
    options = {"scale": scale, "epsilon": 0.5, "singleton": singleton, "where": where}
    np.testing.assert_allclose(advantages.group_normalize(jnp.array([[7.0, 3.0]]), **options), [[0, expected]])


def test_equal_rewards_have_no_advantage() -> None:
    np.testing.assert_array_equal(advantages.group_normalize(jnp.ones((2, 4))), np.zeros((2, 4)))


def test_advantages_are_constants() -> None:
    def total(x: jax.Array) -> jax.Array:
        return advantages.grpo_advantage(x)[0, 0, 0] + advantages.gae_advantage(x, x).returns[0, 0]

    np.testing.assert_array_equal(jax.grad(total)(jnp.asarray(REWARDS)), np.zeros_like(REWARDS))


def test_unknown_singleton_and_shape() -> None:
    with pytest.raises(errors.UserError, match="Did you mean 'zero'"):
        advantages.grpo_advantage(jnp.ones((1, 2)), singleton="zeros")
    with pytest.raises(errors.UserError, match="where has shape"):
        advantages.grpo_advantage(jnp.ones((1, 2)), where=jnp.ones((1, 3), bool))
    with pytest.raises(errors.UserError, match="values has shape"):
        advantages.gae_advantage(jnp.ones((1, 2)), jnp.ones((1, 3)))


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
    gae = advantages.gae_advantage(*dirty, gamma=gamma, lam=lam, where=jnp.asarray(where))
    expected = _gae_by_loop(rewards, values, where, gamma, lam)
    np.testing.assert_allclose(gae.advantages, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gae.returns, np.where(where, expected + values, 0), rtol=1e-4, atol=1e-6)


def test_monte_carlo_gae_is_reward_to_go_minus_value_and_whitens() -> None:
    rewards, values = jnp.asarray(REWARDS), jnp.asarray(REWARDS[::-1].copy())
    gae = advantages.gae_advantage(rewards, values)
    np.testing.assert_allclose(gae.returns, np.cumsum(REWARDS[:, ::-1], -1)[:, ::-1], rtol=1e-4, atol=1e-5)
    whitened = numerics.whiten(gae.advantages)
    np.testing.assert_allclose([whitened.mean(), whitened.std(ddof=1)], [0, 1], atol=1e-5)
