"""GroupRank's reward: its range, unreadable answers, documents that are padding."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import ranking_reward

SCORES = jnp.array([[9.0, 4.0, 1.0]] * 3)
LABELS, CORRECT = jnp.array([[2.0, 1.0, 0.0]] * 3), jnp.array([[1, 1, 0]] * 3)
P = SCORES / 14


def test_a_perfect_answer_has_all_three_parts_and_unreadable_ones_a_penalty():
    found = ranking_reward.grouprank_reward(SCORES, LABELS, CORRECT, P, P, jnp.array([0, 1, 2]))
    np.testing.assert_allclose(found.reward, [1.3, -0.1, -0.5], rtol=1e-6)
    np.testing.assert_allclose(found.group_reward, 1.3, rtol=1e-6)


def test_the_cutoff_and_the_base():
    options = {"topn": 1, "base": 2.0}
    arrays = -SCORES, LABELS, CORRECT, jnp.eye(3)[:1].repeat(3, 0), jnp.eye(3)[1:2].repeat(3, 0)
    found = ranking_reward.grouprank_reward(*arrays, jnp.zeros(3, int), **options)
    np.testing.assert_allclose(found.ndcg, 0.0)
    np.testing.assert_allclose(found.recall, 0.0)
    np.testing.assert_allclose(found.divergence, 1.0, rtol=1e-6)


def test_padding_is_no_document():
    where = jnp.array([[True, True, False]] * 3)
    arrays = SCORES, LABELS, CORRECT, P, P[:, ::-1]
    padded = ranking_reward.grouprank_reward(*(a.at[:, 2].set(7) for a in arrays), jnp.zeros(3, int), where=where)
    kept = ranking_reward.grouprank_reward(*(a[:, :2] for a in arrays), jnp.zeros(3, int))
    for one, other in zip(padded, kept, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_one_status_for_each_group():
    with pytest.raises(errors.UserError, match="the scores without their last axis has shape"):
        ranking_reward.grouprank_reward(SCORES, LABELS, CORRECT, P, P, jnp.array([0, 1]))
