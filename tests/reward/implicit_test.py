"""Implicit reward models: objectives of pairs, and steps that add up to the response."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.reward import implicit

RNG = np.random.default_rng(0)
POLICY, REFERENCE = (jnp.asarray(-RNG.exponential(9, (5, 2)), jnp.float32) for _ in range(2))
TOKENS, TOKEN_REFERENCE = (jnp.asarray(-RNG.exponential(1, (3, 6)), jnp.float32) for _ in range(2))
WHERE = jnp.arange(6) < jnp.array([[6], [4], [2]])
ENDS = jnp.array([[1, 3, 5], [0, 3, -1], [1, -1, -1]])


def test_steps_add_up_to_the_response():
    found = implicit.implicit_prm_step_rewards(TOKENS, TOKEN_REFERENCE, ENDS, where=WHERE)
    whole = 0.05 * np.where(WHERE, TOKENS - TOKEN_REFERENCE, 0).sum(-1)
    np.testing.assert_allclose(found.step_rewards.sum(-1), whole, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.response_reward, whole, rtol=1e-4, atol=1e-6)


def test_absent_steps_do_not_count():
    found = implicit.implicit_prm_step_rewards(TOKENS, TOKEN_REFERENCE, ENDS, where=WHERE)
    for row, steps in enumerate((3, 2, 1)):
        np.testing.assert_array_equal(found.step_rewards[row, steps:], 0)
        np.testing.assert_allclose(found.minimum[row], found.step_rewards[row, :steps].min(), rtol=1e-6)
    nothing = implicit.implicit_prm_step_rewards(TOKENS, TOKEN_REFERENCE, jnp.full((3, 2), -1), where=WHERE)
    np.testing.assert_array_equal(nothing.minimum, 0)


def test_rewards_are_constants():
    total = lambda x: implicit.implicit_prm_step_rewards(x, TOKEN_REFERENCE, ENDS).step_rewards.sum()  # noqa: E731
    np.testing.assert_array_equal(jax.grad(total)(TOKENS), 0)


def test_cross_entropy_saturates_without_a_bound():
    found = implicit.implicit_prm_ce(jnp.array([1e4, -1e4]), jnp.zeros(2), jnp.array([0, 0]), beta=1.0, reduce=None)
    np.testing.assert_array_equal(found, [1e4, 0])


def test_the_reference_points_of_kto_move_with_the_policy():
    """One pair above the reference on both sides: each term sees the difference of the two means, halved slopes."""
    policy, reference = jnp.array([[2.0, 1.0]]), jnp.zeros((1, 2))
    value, slope = jax.value_and_grad(implicit.implicit_prm_kto)(policy, reference, beta=1.0)
    sigmoid = 1 / (1 + np.exp(1.0))
    np.testing.assert_allclose(value, sigmoid, rtol=1e-6)
    # s(z_l - r_w) and s(r_l - z_w) are the same function of r_w - r_l here: both halves have its slope
    np.testing.assert_allclose(slope, [[-sigmoid * (1 - sigmoid), sigmoid * (1 - sigmoid)]], rtol=1e-5)


def test_kto_refuses_to_be_split():
    assert not rlx.build("implicit_prm_kto").splittable and rlx.build("implicit_prm_nca").splittable


def test_a_wrong_objective_is_named():
    with pytest.raises(errors.UserError, match="objective must be one of dpo, nca, biased_nca, got 'biasednca'. Did"):
        implicit.implicit_prm_pairwise(POLICY, REFERENCE, objective="biasednca")
    with pytest.raises(errors.UserError, match="reference_logprobs has shape"):
        implicit.implicit_prm_step_rewards(TOKENS, TOKEN_REFERENCE[:2], ENDS)
