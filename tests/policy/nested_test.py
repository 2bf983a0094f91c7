"""Groups in groups: by hand, against each other in special cases, and mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.policy import advantages, nested
from rlx.policy.returns import reward_to_go

RNG = np.random.default_rng(0)
STEPS = RNG.normal(size=(2, 3, 4)).astype(np.float32)
STATES = RNG.integers(0, 3, (2, 3, 4))
# whole programs compile faster than their operations one by one
gigpo_advantage = jax.jit(nested.gigpo_advantage, static_argnames=("scale", "over_steps"))
matchtir_advantage = jax.jit(nested.matchtir_advantage, static_argnames="average")
WHERE = np.arange(4) < np.array([[[4], [2], [3]], [[1], [4], [4]]])


def test_gigpo_without_steps_is_dr_grpo() -> None:
    found = gigpo_advantage(STEPS, jnp.asarray(STATES), weight=0.0, where=jnp.asarray(WHERE))
    totals = jnp.asarray(np.where(WHERE, STEPS, 0).sum(-1))
    expected = advantages.grpo_advantage(totals, scale=False)[..., None] * WHERE[..., None]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_gigpo_where_no_state_returns_has_no_step_advantage() -> None:
    states = jnp.arange(24).reshape(2, 3, 4)
    found, whole = (gigpo_advantage(STEPS, states, weight=weight, scale=True) for weight in (1.0, 0.0))
    np.testing.assert_array_equal(found, whole)


def test_gigpo_at_one_state_is_a_group_of_all_steps() -> None:
    found = gigpo_advantage(STEPS, jnp.zeros((2, 3, 4), int), jnp.ones((2, 3)), gamma=0.5, scale=True)
    returns = reward_to_go(STEPS, gamma=0.5).reshape(2, 12)
    np.testing.assert_allclose(found.reshape(2, 12), advantages.group_normalize(returns), rtol=1e-4, atol=1e-6)


def test_gigpo_over_steps_weighs_long_trajectories_more() -> None:
    """Returns 3 and 0 over 3 steps and 1: the mean is 9/4 over steps, 3/2 over trajectories."""
    steps, where = jnp.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), jnp.array([[True] * 3, [True, False, False]])
    states = jnp.arange(6).reshape(2, 3)
    by = {over: gigpo_advantage(steps, states, over_steps=over, where=where)[:, 0, 0] for over in (True, False)}
    np.testing.assert_allclose(by[True], [0.75, -2.25])
    np.testing.assert_allclose(by[False], [1.5, -1.5])


def test_anchor_states_by_similarity() -> None:
    observations = [["you are in the hall 1", "kitchen"], ["you are in the hall 2"]]
    np.testing.assert_array_equal(nested.anchor_states(observations), [[0, 1], [2, -1]])
    np.testing.assert_array_equal(nested.anchor_states(observations, similarity=0.9), [[0, 1], [0, -1]])
    assert nested.anchor_states([]).shape == (0, 0)


def test_anchor_states_mistakes() -> None:
    with pytest.raises(errors.UserError, match=r"similarity must be in \(0, 1\], got 0"):
        nested.anchor_states([["a"]], similarity=0.0)
    with pytest.raises(errors.UserError, match="compares texts, got a int"):
        nested.anchor_states([[3]], similarity=0.5)


def test_matchtir_of_one_turn_is_grpo_twice() -> None:
    rewards = jnp.zeros((3, 4)).at[:, -1].set(jnp.array([1.0, 0.0, 0.5]))
    found = matchtir_advantage(rewards, jnp.zeros((3, 4), int), average=True)
    np.testing.assert_allclose(found, jnp.broadcast_to(advantages.grpo_advantage(rewards.sum(-1)), (3, 4)), rtol=1e-5)


def test_matchtir_tokens_without_a_turn_have_that_of_the_response() -> None:
    rewards, turns = jnp.array([[1.0, 0.0], [0.0, 0.0]]), jnp.array([[0, -1], [0, -1]])
    found = matchtir_advantage(rewards, turns)
    np.testing.assert_allclose(found[:, 1:], advantages.grpo_advantage(jnp.array([1.0, 0.0])), rtol=1e-5)


def test_spo_chain_telescopes() -> None:
    """Segments from the first token on: their gains add up to the reward less the value of the prompt."""
    logprobs = jnp.log(jnp.array([0.5, 0.95, 0.2, 0.4, 0.99, 0.1]))
    values = jnp.array([0.3, jnp.nan, 0.6, 0.1, jnp.nan, 0.9])
    found = nested.spo_chain_advantage(logprobs, values, jnp.array(1.0), interval=1)
    starts = np.asarray(nested.spo_starts(logprobs, interval=1))
    np.testing.assert_allclose(found[starts].sum(), 0.7, rtol=1e-5)
    np.testing.assert_array_equal(found[~starts], 0)  # certain tokens


def test_spo_at_the_threshold_is_neither_cut_nor_dropped() -> None:
    logprobs = jnp.log(jnp.array([0.5, 0.75]))
    np.testing.assert_array_equal(nested.spo_starts(logprobs, threshold=0.75, interval=1), [True, False])
    found = nested.spo_chain_advantage(logprobs, jnp.zeros(2), jnp.array(1.0), threshold=0.75, interval=1)
    np.testing.assert_array_equal(found, 1)


def test_spo_of_many_responses_is_that_of_each() -> None:
    logprobs = jnp.asarray(-np.abs(RNG.normal(size=(2, 3, 6))).astype(np.float32))
    values, rewards = jnp.asarray(RNG.random((2, 3, 6)).astype(np.float32)), jnp.asarray(RNG.random((2, 3)))
    whole = nested.spo_chain_advantage(logprobs, values, rewards, interval=2)
    one = nested.spo_chain_advantage(logprobs[1, 2], values[1, 2], rewards[1, 2], interval=2)
    np.testing.assert_allclose(whole[1, 2], one, rtol=1e-6)


def test_spo_mistakes() -> None:
    with pytest.raises(errors.UserError, match="interval counts cut points and must be at least 1, got 0"):
        nested.spo_starts(jnp.zeros(3), interval=0)
    with pytest.raises(errors.UserError, match=r"values has shape \(2,\)"):
        nested.spo_chain_advantage(jnp.zeros(3), jnp.zeros(2), jnp.zeros(()))
