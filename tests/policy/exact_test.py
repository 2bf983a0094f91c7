"""Exact objectives: the optimum is one, sampled advantages agree, impossible actions, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.policy import exact

RNG = np.random.default_rng(0)
REWARDS = RNG.normal(size=(3, 5)).astype(np.float32)
LOGITS = RNG.normal(size=(3, 5)).astype(np.float32)


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0, 3.0])
def test_no_policy_is_better_than_the_optimum(q: float) -> None:
    policy = exact.tsallis_optimum(REWARDS, q=q, beta=0.5)
    np.testing.assert_allclose(policy.sum(-1), 1, rtol=1e-5)
    best = rlx.tsallis_policy_gradient(jnp.log(policy), REWARDS, q=q, beta=0.5, reduce=None)
    others = np.log(RNG.dirichlet(np.ones(5), 200)) + np.zeros((3, 1, 1))
    near = np.log(np.maximum(np.asarray(policy)[:, None] + 0.01 * RNG.normal(size=(3, 200, 5)), 1e-9))
    for logits in (others, near):
        losses = rlx.tsallis_policy_gradient(
            jnp.asarray(logits, jnp.float32), REWARDS[:, None], q=q, beta=0.5, reduce=None
        )
        assert (losses >= best[:, None] - 1e-5).all()


def test_optima_with_a_name() -> None:
    softmax = jax.nn.softmax(REWARDS / 0.5)
    np.testing.assert_allclose(exact.tsallis_optimum(REWARDS, q=1.0, beta=0.5), softmax, rtol=1e-5)
    np.testing.assert_allclose(exact.tsallis_optimum(REWARDS, q=1.0001, beta=0.5), softmax, rtol=2e-3)
    sparse = exact.tsallis_optimum(REWARDS, q=2.0, beta=0.5)
    threshold = (REWARDS - np.asarray(sparse))[np.asarray(sparse) > 0]
    assert (np.asarray(sparse) == 0).any()
    rows = np.nonzero(np.asarray(sparse) > 0)[0]
    for row in range(3):  # sparsemax: what is kept is lowered by the same amount
        np.testing.assert_allclose(threshold[rows == row], threshold[rows == row][0], atol=1e-5)


def test_the_sampled_gradient_is_the_exact_one_on_average() -> None:
    logits, rewards = jnp.asarray(LOGITS[0]), REWARDS[0]
    every = jnp.arange(5)
    rows = jnp.broadcast_to(logits, (5, 5))
    advantages = exact.soft_advantage(rows, every, jnp.broadcast_to(rewards, (5, 5)), beta=0.3)
    weights = jax.nn.softmax(logits)
    np.testing.assert_allclose(weights @ advantages, 0, atol=1e-6)
    sampled = jax.grad(lambda z: -jnp.sum(weights * advantages * jax.nn.log_softmax(z)))(logits)
    whole = jax.grad(lambda z: rlx.soft_policy_gradient(z, rewards, beta=0.3))(logits)
    np.testing.assert_allclose(sampled, whole, atol=1e-6)


def test_impossible_actions_may_have_any_reward() -> None:
    logits, rewards = jnp.array([0.0, 1.0, -jnp.inf]), jnp.array([1.0, 0.0, jnp.nan])
    for q in (0.5, 1.0, 2.0):
        loss = lambda z, r, q=q: rlx.tsallis_policy_gradient(z, r, q=q)  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(logits, rewards)
        expected, expected_gradient = jax.value_and_grad(loss)(logits[:2], rewards[:2])
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(gradient, [*expected_gradient, 0], rtol=1e-5, atol=1e-7)


def test_the_advantage_is_a_constant() -> None:
    total = lambda z: exact.soft_advantage(z, jnp.zeros(3, int), REWARDS).sum()  # noqa: E731
    assert not jax.grad(total)(jnp.asarray(LOGITS)).any()


def test_errors_name_the_culprit() -> None:
    with pytest.raises(errors.UserError, match="action_values has shape"):
        rlx.soft_policy_gradient(LOGITS, REWARDS[:, :4])
    with pytest.raises(errors.UserError, match="beta must be above 0, got 0"):
        exact.tsallis_optimum(REWARDS, beta=0)
