"""Rewards of steps, and the baseline of every position: special cases, singletons, errors."""

import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.policy import token_groups

REWARDS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def test_process_rewards_of_one_step_are_outcome_rewards() -> None:
    outcomes = np.where(np.arange(5) == 4, REWARDS, 0)
    actual = rlx.grpo_process_advantage(outcomes, np.full((3, 1), 4))
    np.testing.assert_allclose(actual, np.broadcast_to(rlx.grpo_advantage(outcomes[:, 4]), (3, 5)), rtol=1e-5)


def _token_baseline(lengths: list[int], **options: bool) -> np.ndarray:
    where = np.arange(5) < np.array(lengths)[:, None]
    logs = np.log(np.full((len(lengths), 5), 0.5, np.float32))
    rewards = np.where(np.arange(5) == np.array(lengths)[:, None] - 1, 1.0, 0.0)
    return np.asarray(token_groups.optimal_token_baseline_advantage(rewards, logs, -logs, where=where, **options))


def test_token_baseline_of_equal_returns_is_the_return() -> None:
    """Everybody's return is 1, so is the weighted mean; the longest alone may keep its own beyond the others."""
    np.testing.assert_allclose(_token_baseline([5, 3, 2]), np.zeros((3, 5)), atol=1e-6)
    kept = _token_baseline([5, 3, 2], handle_zero_tail=True)
    np.testing.assert_allclose(kept[0], [0, 0, 0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(kept[1:], np.zeros((2, 5)), atol=1e-6)
    np.testing.assert_allclose(_token_baseline([4, 4], handle_zero_tail=True), np.zeros((2, 5)), atol=1e-6)


@pytest.mark.parametrize("lengths", [[5], [5, 0]])
def test_token_baseline_of_a_singleton_is_nothing(lengths: list[int]) -> None:
    np.testing.assert_array_equal(_token_baseline(lengths, handle_zero_tail=True)[0], np.ones(5))


def test_errors() -> None:
    with pytest.raises(errors.UserError, match="step_ends"):
        rlx.grpo_process_advantage(REWARDS, np.ones((2, 2), int))
    with pytest.raises(errors.UserError, match="renyi2 has shape"):
        token_groups.optimal_token_baseline_advantage(REWARDS, REWARDS, REWARDS[:2])
