"""Advantages by likelihood, entropy, length and hardness: by hand, special cases, errors."""

import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors

RNG = np.random.default_rng(0)
TOKENS = RNG.random((2, 4, 3)).astype(np.float32)
REWARDS = RNG.integers(0, 2, (2, 4)).astype(np.float32)


def test_a_likely_success_counts_less() -> None:
    old = np.array([[-1.0], [-3.0], [-2.0], [-4.0]])
    actual = rlx.unlikeliness_advantage(old, np.array([1.0, 1.0, 0.0, 0.0]), beta=0.5)
    np.testing.assert_allclose(actual, rlx.grpo_advantage(np.array([1 - 0.5 * 3 / 4, 1 - 0.5 / 4, 0, 0])), rtol=1e-5)
    np.testing.assert_array_equal(rlx.unlikeliness_advantage(old, np.zeros(4)), np.zeros((4, 1)))


def test_a_response_without_tokens_is_a_member_if_named() -> None:
    where = np.ones((2, 4, 3), bool)
    where[0, 1] = False
    named = rlx.unlikeliness_advantage(-TOKENS, REWARDS, np.ones((2, 4), bool), beta=0.0, where=where)
    np.testing.assert_allclose(named, rlx.grpo_advantage(REWARDS), rtol=1e-6)
    unnamed = rlx.unlikeliness_advantage(-TOKENS, REWARDS, beta=0.0, where=where)
    np.testing.assert_allclose(unnamed, rlx.grpo_advantage(REWARDS, where=where.any(-1)), rtol=1e-6)


def test_canon_compares_halves() -> None:
    """Rewards 1, 2 | 4, 8, in ascending order of the entropy."""
    entropy, rewards = jnp.array([[0.1], [0.9], [0.2], [0.8]]), jnp.array([1.0, 8.0, 2.0, 4.0])
    inter, intra = (rlx.canon(entropy, rewards, mu=mu, max_length=1)[:, 0] for mu in (1.0, 0.0))
    np.testing.assert_allclose(inter, [-5, 6.5, -4, 2.5], rtol=1e-6)
    np.testing.assert_allclose(intra, [-0.5, 2, 0.5, -2], rtol=1e-6)
    weighed = rlx.canon(entropy, rewards, alpha=0.5, max_length=1)[:, 0]
    np.testing.assert_allclose(weighed, [0.5 - 6, 8 - 0.75, 1 - 6, 4 - 0.75], rtol=1e-6)


def test_canon_half_and_half_of_an_even_group_is_dr_grpo() -> None:
    """The two means then weigh the same, whatever the metric."""
    for metric in ("entropy", "length"):
        actual = rlx.canon(TOKENS, REWARDS, metric=metric, mu=0.5, max_length=1)
        np.testing.assert_allclose(actual, rlx.dr_grpo_advantage(REWARDS), atol=1e-6)


def test_canon_by_length_and_annealed() -> None:
    where = np.arange(3) < np.array([[3, 1, 2, 1], [1, 1, 1, 3]])[..., None]
    by_length = rlx.canon(TOKENS, REWARDS, metric="length", max_length=1, where=where)
    same = rlx.canon(
        jnp.asarray(where.sum(-1), jnp.float32)[..., None] * np.ones(3), REWARDS, max_length=1, where=where
    )
    np.testing.assert_allclose(by_length, same)
    annealed = rlx.canon(TOKENS, REWARDS, mu=None)
    np.testing.assert_allclose(annealed, rlx.canon(TOKENS, REWARDS, mu=float(REWARDS.mean())), rtol=1e-5)


def test_hardness_weighs_from_one_to_one_and_a_half() -> None:
    correct = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], np.float32)
    mu = (2 * correct - 1).mean(-1, keepdims=True)
    expected = (2 * correct - 1 - mu) * (1.256 - 0.256 * mu)
    np.testing.assert_allclose(rlx.policy_specific_hardness_weighting(correct)[..., 0], expected, rtol=1e-5)
    plain = rlx.policy_specific_hardness_weighting(correct, alpha=0.0, offset=0.5)
    np.testing.assert_allclose(plain, rlx.dr_grpo_advantage(correct), atol=1e-6)


def test_certain_responses_count_more() -> None:
    ones = np.ones((2, 4, 1), np.float32)
    scaled = rlx.ettrl_advantage(ones, TOKENS)[..., 0]
    np.testing.assert_allclose(scaled.mean(-1), [1, 1], rtol=1e-5)
    np.testing.assert_array_equal(scaled.argsort(-1), (-TOKENS.mean(-1)).argsort(-1))
    np.testing.assert_array_equal(rlx.ettrl_advantage(ones, np.zeros_like(TOKENS)), ones)


def test_errors() -> None:
    with pytest.raises(errors.UserError, match="Did you mean 'length'"):
        rlx.canon(TOKENS, REWARDS, metric="lenght")
    with pytest.raises(errors.UserError, match="rewards"):
        rlx.canon(TOKENS, REWARDS[:, :2])
    with pytest.raises(errors.UserError, match="rewards"):
        rlx.unlikeliness_advantage(TOKENS, REWARDS[:, :2])
    with pytest.raises(errors.UserError, match="advantages has shape"):
        rlx.ettrl_advantage(np.ones((2, 3, 1)), TOKENS)
