"""Critique-GRPO is PPO on the policy's own tokens, and reads no old policy on the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors

RNG = np.random.default_rng(0)
NOW, OLD = -np.abs(RNG.normal(1, 0.5, (2, 3, 4))).astype(np.float32)
ADVANTAGES = RNG.normal(size=(3, 1)).astype(np.float32)


def test_without_refinements_it_is_ppo_with_a_wide_clip():
    loss = rlx.critique_grpo_loss(NOW, OLD, ADVANTAGES, np.zeros((3, 1)), clip_upper_bound=1.28)
    np.testing.assert_allclose(loss, rlx.ppo_clip_loss(NOW, OLD, ADVANTAGES, clip_high=0.28), rtol=1e-6)


def test_the_old_policy_does_not_reach_a_refinement():
    refined = np.array([[1], [0], [0]])
    missing = np.where(refined > 0, np.nan, OLD)
    loss, grad = jax.value_and_grad(rlx.critique_grpo_loss)(jnp.asarray(NOW), missing, ADVANTAGES, refined)
    expected, expected_grad = jax.value_and_grad(rlx.critique_grpo_loss)(jnp.asarray(NOW), OLD, ADVANTAGES, refined)
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(grad, expected_grad)


def test_the_shape_lifts_unlikely_tokens_most():
    """With gamma the slope in log p is A p gamma / (p + gamma)^2: largest at p = gamma; without it A p."""

    def slope(p, gamma):
        loss = lambda x: rlx.critique_grpo_loss(x, x, jnp.ones(1), jnp.ones(1), gamma=gamma)  # noqa: E731
        return -jax.grad(loss)(jnp.log(jnp.array([p])))[0]

    np.testing.assert_allclose(slope(0.1, 0.1), 0.25, rtol=1e-5)
    assert slope(0.9, 0.1) < slope(0.1, 0.1) > slope(0.01, 0.1)
    np.testing.assert_allclose(slope(0.9, None), 0.9, rtol=1e-5)


def test_shapes_must_agree():
    with pytest.raises(errors.UserError, match=r"refined has shape \(3,\), but logprobs has shape \(3, 4\)"):
        rlx.critique_grpo_loss(NOW, OLD, ADVANTAGES, np.zeros(3))
