"""The judge that answers in words, and the bounded reward of its answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.reward import judge

LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 5)), jnp.float32)


def test_the_order_of_presentation_matters():
    tokens = {"affirmative_token": 3, "negative_token": 1}
    logs = np.asarray(jax.nn.log_softmax(LOGITS))
    found = judge.onereward_reward_model(LOGITS, **tokens, reduce=None)
    np.testing.assert_allclose(found, -(logs[:, 0, 3] + logs[:, 1, 1]) / 2, rtol=1e-6)
    assert not np.isclose(found, judge.onereward_reward_model(LOGITS[:, ::-1], **tokens, reduce=None)).any()


def test_nothing_pushes_beyond_the_bound_or_at_it():
    slope = jax.grad(judge.onereward_policy_loss)(jnp.array([0.2, 0.8, 0.9]), reward_bound=0.8)
    np.testing.assert_allclose(slope, [-1 / 3, 0, 0], rtol=1e-6)


def test_dimensions_of_another_task_do_not_count():
    probability, where = jnp.array([[0.5, 0.1], [0.5, 0.3]]), jnp.array([[True, False], [True, True]])
    found = judge.onereward_policy_loss(probability, where=where, reduce=None)
    np.testing.assert_allclose(found, [0.5, 0.6], rtol=1e-6)


def test_wrong_settings_are_named():
    with pytest.raises(errors.UserError, match=r"negative_token -1 must be in \[0, 5\)"):
        judge.onereward_reward_model(LOGITS, negative_token=-1)
    with pytest.raises(errors.UserError, match=r"wants \[..., 2\]"):
        judge.onereward_reward_model(LOGITS[:, :1])
