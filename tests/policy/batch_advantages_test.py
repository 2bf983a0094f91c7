"""Advantages that look at the whole batch, or draw: against token-level whitening, counts, properties of the draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors, numerics
from rlx.policy import batch_advantages

REWARDS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


@pytest.mark.parametrize(("valid", "scale"), [("prompts", 3 / 1), ("rewards", 12 / 6)])
def test_gpg_scales_up_for_what_teaches_nothing(valid: str, scale: float) -> None:
    rewards = np.array([[1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], np.float32)
    actual = rlx.gpg_advantage(rewards, valid=valid, f_norm=0.5)
    np.testing.assert_allclose(actual, rlx.dr_grpo_advantage(rewards) * scale / 0.5)


def test_gpg_of_nothing_is_nothing() -> None:
    np.testing.assert_array_equal(rlx.gpg_advantage(np.zeros((2, 3))), np.zeros((2, 3, 1)))
    with pytest.raises(errors.UserError, match="Did you mean 'prompts'"):
        rlx.gpg_advantage(REWARDS, valid="prompt")


def test_whitening_by_lengths_is_whitening_over_tokens() -> None:
    where = np.arange(5) < np.random.default_rng(1).integers(0, 6, (3, 4))[..., None]
    tokens = numerics.whiten(jnp.broadcast_to(rlx.dr_grpo_advantage(REWARDS), where.shape), where=where)
    actual = rlx.reinforce_plus_plus_baseline_advantage(REWARDS, where.sum(-1))
    np.testing.assert_allclose(np.where(where, actual, 0), tokens, rtol=1e-4, atol=1e-6)


def test_the_draw_balances_every_group_and_never_drops_a_positive() -> None:
    rewards = np.array([[1, 0, 0, 0, 0, 9], [0, 0, 1, 0, 0, 0], [1, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]], np.float32)
    where = np.ones(rewards.shape, bool)
    where[0, 5] = False
    draws = [np.asarray(batch_advantages.red_drop_keep(rewards, key=jax.random.key(i), where=where)) for i in range(9)]
    for keep in draws:
        np.testing.assert_array_equal(keep.sum(-1), [2, 2, 6, 6])
        assert keep[:3][(rewards[:3] > 0) & where[:3]].all() and not keep[0, 5]
    assert len({keep.tobytes() for keep in draws}) > 1


def test_red_drop_is_relative_to_what_is_left() -> None:
    rewards = np.array([[1, 0, 0, 0]], np.float32)
    actual = rlx.red_drop_advantage(rewards, key=jax.random.key(0))[0, :, 0]
    assert sorted(actual.tolist()) == [-0.5, 0, 0, 0.5]
    np.testing.assert_array_equal(
        rlx.red_drop_advantage(rewards, keep=np.ones((1, 4), bool)), rlx.rec_advantage(rewards)
    )
    with pytest.raises(errors.UserError, match="pass key="):
        rlx.red_drop_advantage(rewards)
