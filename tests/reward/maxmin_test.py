"""The MaxMin policy: duality, invariance, and the cases with an answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.reward import maxmin

REWARDS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6)), jnp.float32)
REFERENCE = jnp.asarray(np.random.default_rng(1).normal(size=6), jnp.float32)


def objective(logps, rewards=REWARDS, beta=0.3):
    p, reference = np.exp(logps), jax.nn.log_softmax(REFERENCE)
    return (p * rewards).sum(-1).min() - beta * (p * (logps - reference)).sum()


def test_no_other_policy_does_better():
    found = maxmin.maxmin_rlhf(REWARDS, REFERENCE, beta=0.3)
    best, rng = objective(np.asarray(found.policy_logps)), np.random.default_rng(2)
    assert found.converged and found.gap <= 1e-5
    for scale in (0.01, 0.1, 1.0):
        for _ in range(50):
            other = jax.nn.log_softmax(found.policy_logps + scale * rng.normal(size=6))
            assert objective(np.asarray(other)) <= best + 2e-5


def test_one_group_has_the_closed_form():
    found = maxmin.maxmin_rlhf(REWARDS[:1], REFERENCE, beta=0.3)
    np.testing.assert_allclose(found.policy_logps, jax.nn.log_softmax(REFERENCE + REWARDS[0] / 0.3), rtol=1e-5)
    assert found.steps == 0


def test_a_group_that_is_always_better_off_has_no_weight():
    rewards = jnp.stack([REWARDS[0], REWARDS[0] + 1])
    found = maxmin.maxmin_rlhf(rewards, REFERENCE, beta=0.3)
    assert found.converged and found.group_weights[1] < 1e-4


def test_giving_up_is_told():
    assert not maxmin.maxmin_rlhf(REWARDS, REFERENCE, beta=0.01, tolerance=0.0, max_steps=3).converged


def test_wrong_settings_are_named():
    with pytest.raises(errors.UserError, match="beta must be above 0"):
        maxmin.maxmin_rlhf(REWARDS, REFERENCE, beta=0)
    with pytest.raises(errors.UserError, match="rewards of a group has shape"):
        maxmin.maxmin_rlhf(REWARDS, REFERENCE[:5])
