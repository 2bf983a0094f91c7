"""Preferences over segments: the two regrets, shaping, masks and discounts."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.reward import regret

RNG = np.random.default_rng(0)
REWARDS, STATES = RNG.normal(size=(3, 2, 4)), RNG.normal(size=(3, 2, 5))
VALUES, FINAL = jnp.asarray(STATES[..., :-1], jnp.float32), jnp.asarray(STATES[..., -1], jnp.float32)
REWARDS = jnp.asarray(REWARDS, jnp.float32)


def test_where_transitions_are_deterministic_the_regrets_agree():
    q_values = REWARDS + jnp.asarray(STATES[..., 1:], jnp.float32)
    general = regret.regret(q_values, VALUES)
    np.testing.assert_allclose(regret.deterministic_regret(REWARDS, VALUES, FINAL), general, rtol=1e-4, atol=1e-5)


def test_optimal_segments_are_indifferent_however_much_they_earn():
    assert np.isclose(regret.regret_preference(VALUES, VALUES), np.log(2))
    assert not np.isclose(regret.partial_return_preference(REWARDS), np.log(2))


def test_the_first_real_step_starts_the_segment():
    where = jnp.array([False, True, True, True])
    padded = REWARDS.at[..., 0].set(jnp.nan), VALUES.at[..., 0].set(jnp.nan)
    mask = jnp.broadcast_to(where, REWARDS.shape)
    found = regret.deterministic_regret(*padded, FINAL, where=mask)
    np.testing.assert_allclose(found, regret.deterministic_regret(REWARDS[..., 1:], VALUES[..., 1:], FINAL), rtol=1e-5)
    discounted = regret.partial_return(padded[0], discount=0.5, where=mask)
    np.testing.assert_allclose(discounted, regret.partial_return(REWARDS[..., 1:], discount=0.5), rtol=1e-5)


def test_a_pair_without_a_segment_is_masked():
    where = jnp.ones(REWARDS.shape, bool).at[1, 0].set(False)
    found = regret.partial_return_preference(REWARDS, where=where, reduce=None)
    assert found[1] == 0 and (found[jnp.array([0, 2])] > 0).all()


def test_wrong_shapes_are_named():
    with pytest.raises(errors.UserError, match=r"segments have shape \(3, 'T'\): they want \[..., 2, T\]"):
        regret.partial_return_preference(REWARDS[:, 0])
    with pytest.raises(errors.UserError, match="values has shape"):
        regret.regret_preference(VALUES, VALUES[..., :2])
