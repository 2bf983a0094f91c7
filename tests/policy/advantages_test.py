"""Advantages of groups: by hand, invariances, special cases, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.policy import advantages, centres

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
    np.testing.assert_allclose(rlx.rloo_advantage(REWARDS)[..., 0], REWARDS - others, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(rlx.dr_grpo_advantage(REWARDS), rlx.rloo_advantage(REWARDS) * (n - 1) / n, rtol=1e-4)


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


@pytest.mark.parametrize("centre", [centres.mean, centres.log_mean_exp(0.3), centres.weighted(jnp.array([1, 2, 4]))])
def test_equal_rewards_have_no_advantage(centre: centres.Centre) -> None:
    """Exactly, also where the mean of equal numbers is rounded to another one."""
    equal = jnp.array([[0.1], [1e4 / 3], [-7e-5]]) * jnp.ones(3)
    np.testing.assert_array_equal(advantages.group_normalize(equal, centre=centre), np.zeros((3, 3)))


def test_equal_rewards_have_no_advantage_without_an_epsilon() -> None:
    np.testing.assert_array_equal(advantages.grpo_advantage(jnp.full((2, 3), 0.7), epsilon=0.0), 0)


def test_special_cases() -> None:
    """Names of one formula: a shift of 0, equal lengths, a soft maximum that is the mean, no virtual response."""
    centred, scaled = rlx.dr_grpo_advantage(REWARDS), rlx.grpo_advantage(REWARDS)
    np.testing.assert_allclose(rlx.asymre_advantage(REWARDS, shift=0.0), centred, rtol=1e-5)
    np.testing.assert_allclose(rlx.opo_advantage(REWARDS, np.full((3, 5), 7)), centred, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rlx.opmd_advantage(REWARDS, tau=1e3), centred, atol=1e-2)
    np.testing.assert_allclose(rlx.rec_advantage(REWARDS), rlx.opmd_advantage(REWARDS), rtol=1e-5)
    np.testing.assert_allclose(rlx.ngrpo_advantage(REWARDS, num_virtual=0), scaled, rtol=1e-5)


def test_pass_at_k_teaches_the_best_alone() -> None:
    rewards = jnp.array([[0.0, 2.0, 5.0, 9.0], [4.0, 4.0, 1.0, 0.0], [3.0, 1.0, 1.0, 1.0]])
    where = jnp.array([[True, True, True, False], [True] * 4, [True, False, False, False]])
    actual = rlx.passk_advantage(rewards, scale=False, where=where)[..., 0]
    np.testing.assert_array_equal(actual, [[0, 0, 3, 0], [0] * 4, [0] * 4])


def test_a_wrong_group_is_pushed_down() -> None:
    """With one virtual response G wrong ones have 0 - 1/(G+1) over the deviation (G+1)^-1/2."""
    actual = rlx.ngrpo_advantage(jnp.zeros((1, 8)), epsilon=0.0)[0, :, 0]
    np.testing.assert_allclose(actual, np.full(8, -1 / 3), rtol=1e-5)
    np.testing.assert_array_equal(rlx.ngrpo_advantage(jnp.ones((1, 8))), np.zeros((1, 8, 1)))
    alone = jnp.array([[False, True]])
    np.testing.assert_allclose(rlx.ngrpo_advantage(jnp.zeros((1, 2)), where=alone), np.zeros((1, 2, 1)))


def test_soft_maximum_needs_a_temperature() -> None:
    with pytest.raises(errors.UserError, match="tau must be above 0"):
        rlx.opmd_advantage(REWARDS, tau=0.0)
    with pytest.raises(errors.UserError, match="lengths has shape"):
        rlx.opo_advantage(REWARDS, np.ones((3, 4)))


def test_advantages_are_constants() -> None:
    gradient = jax.grad(lambda x: advantages.grpo_advantage(x)[0, 0, 0])(jnp.asarray(REWARDS))
    np.testing.assert_array_equal(gradient, np.zeros_like(REWARDS))


def test_unknown_singleton_and_shape() -> None:
    with pytest.raises(errors.UserError, match="Did you mean 'zero'"):
        advantages.grpo_advantage(jnp.ones((1, 2)), singleton="zeros")
    with pytest.raises(errors.UserError, match="where has shape"):
        advantages.grpo_advantage(jnp.ones((1, 2)), where=jnp.ones((1, 3), bool))
