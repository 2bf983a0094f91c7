"""Several objectives: combined before or after they are normalised."""

import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.reward import objectives

REWARDS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 2)), jnp.float32)


def test_an_objective_of_large_scale_drowns_the_sum_and_not_the_normalised():
    loud = REWARDS * jnp.array([1.0, 1e3])
    found = objectives.multi_objective_grpo(loud)
    np.testing.assert_allclose(found, objectives.multi_objective_grpo(loud, weights=(0, 1)), atol=0.01)
    each = objectives.multi_objective_grpo(loud, per_objective=True)
    np.testing.assert_allclose(each, objectives.multi_objective_grpo(REWARDS, per_objective=True), atol=1e-4)


def test_one_objective_is_plain_grpo():
    for per_objective in (False, True):
        found = objectives.multi_objective_grpo(REWARDS[..., :1], per_objective=per_objective, ddof=1, epsilon=1e-6)
        np.testing.assert_allclose(found[..., 0], rlx.grpo_advantage(REWARDS[..., 0])[..., 0], rtol=1e-5)


def test_the_number_of_weights_is_checked():
    with pytest.raises(errors.UserError, match=r"weights has shape \(3,\): there are 2 objectives"):
        objectives.multi_objective_grpo(REWARDS, weights=(1, 1, 1))
