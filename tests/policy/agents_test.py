"""Credit among agents: by hand, padding, an outcome that nobody reached, errors."""

import numpy as np
import pytest

import rlx
from rlx import errors

OWN = np.array([[0.9, 0.1], [0.5, 0.2], [0.2, 0.8]], np.float32)


def test_the_agent_that_ranks_as_the_outcome_gets_more() -> None:
    credit = rlx.comam_credit(np.array([1.0, 1.0, 0.0]), OWN, epsilon=0.0)
    ideal = 1 + 1 / np.log2(3)
    expected = np.array([1, (1 / np.log2(3) + 1 / np.log2(4)) / ideal])
    np.testing.assert_allclose(credit.consistency, expected, rtol=1e-5)
    weights = np.exp(expected) / np.exp(expected).sum()
    np.testing.assert_allclose(credit.weights, weights, rtol=1e-5)
    total = OWN + weights * np.array([[1], [1], [0]])
    np.testing.assert_allclose(credit.rewards, total, rtol=1e-5)
    np.testing.assert_allclose(credit.advantages, (total - total.mean(0)) / total.std(0, ddof=1), rtol=1e-4, atol=1e-6)


def test_nobody_reached_the_outcome() -> None:
    credit = rlx.comam_credit(np.zeros(3), OWN)
    np.testing.assert_array_equal(credit.weights, [0.5, 0.5])
    np.testing.assert_allclose(credit.advantages[:, 0], rlx.grpo_advantage(OWN[:, 0])[:, 0], rtol=1e-5)


def test_padding_does_not_count() -> None:
    rewards, where = np.array([0.0, 1.0, np.nan]), np.array([True, True, False])
    padded, kept = rlx.comam_credit(rewards, OWN, where=where), rlx.comam_credit(rewards[:2], OWN[:2])
    np.testing.assert_allclose(padded.consistency, kept.consistency, rtol=1e-6)
    np.testing.assert_allclose(padded.advantages[:2], kept.advantages, rtol=1e-5)
    np.testing.assert_array_equal(padded.advantages[2], [0, 0])


def test_shapes_must_agree() -> None:
    with pytest.raises(errors.UserError, match="agent_rewards of one agent has shape"):
        rlx.comam_credit(np.zeros(4), OWN)
