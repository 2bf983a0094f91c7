"""Terms of a reward: edges of the ranges, ragged groups, stages of a critique, errors."""

import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.reward import shaping


def test_the_overlong_penalty_at_its_edges():
    penalty = shaping.dapo_overlong_penalty(jnp.array([0, 80, 90, 100, 120]), max_length=100, buffer_length=20)
    np.testing.assert_allclose(penalty, [0, 0, -0.5, -1, -1])
    unbounded = shaping.dapo_overlong_penalty(
        jnp.array([120]), max_length=100, buffer_length=20, floor=-np.inf, factor=0.5
    )
    np.testing.assert_allclose(unbounded, -1)


def test_kimi_ranks_within_the_real_responses():
    lengths, where = jnp.array([[10, 20, 99], [5, 5, 0]]), jnp.array([[True, True, False], [True, True, False]])
    reward = shaping.kimi_length_reward(lengths, jnp.array([[1, 1, 1], [1, 0, 1]]), where=where)
    np.testing.assert_allclose(reward, [[0.5, -0.5, 0], [0, 0, 0]])
    np.testing.assert_array_equal(shaping.kimi_length_reward(lengths, lengths, where=jnp.zeros((2, 3), bool)), 0)


def test_l1_asks_for_just_the_length_or_for_at_most_it():
    arrays = jnp.array([500, 1000, 1500]), jnp.array([1000]), jnp.array([1, 1, 1])
    np.testing.assert_allclose(shaping.l1_length_reward(*arrays), [0.85, 1, 0.85], rtol=1e-6)
    np.testing.assert_allclose(shaping.l1_length_reward(*arrays, maximum=True), [0.65, 0.5, 0.35], rtol=1e-6)


def test_the_stages_of_critique_rl():
    arrays = jnp.array([1, 1, 0, 0]), jnp.array([1, 0, 0, 1]), jnp.array([1, 0, 1, 1])
    reward = lambda **options: np.asarray(shaping.critique_rl_reward(*arrays, **options))  # noqa: E731
    np.testing.assert_allclose(reward(refinement="none", beta1=1.0), [1, 0, 1, 0])
    np.testing.assert_allclose(reward(), [1.2, 0, 1.2, 1], rtol=1e-6)
    np.testing.assert_allclose(rlx.critique_rl_released_reward(*arrays), [1.2, -1, 1.2, -1], rtol=1e-6)
    np.testing.assert_allclose(reward(refinement="correction", beta1=0.0), [0.2, 0, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(reward(refinement="improvement", beta1=0.0), [0, -1, 1, 1])


def test_errors():
    with pytest.raises(errors.UserError, match="Unknown refinement 'improved'. Did you mean 'improvement'"):
        shaping.critique_rl_reward(*jnp.zeros((3, 2)), refinement="improved")
    with pytest.raises(errors.UserError, match="buffer_length must be above 0, got 0"):
        shaping.dapo_overlong_penalty(jnp.zeros(2), buffer_length=0)
    with pytest.raises(errors.UserError, match=r"correct has shape \(3,\), but lengths has shape \(2,\)"):
        shaping.kimi_length_reward(jnp.zeros(2), jnp.zeros(3))
