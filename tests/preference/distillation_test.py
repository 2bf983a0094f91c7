"""Plackett-Luce distillation: against the sum written out, its weightings, and classes that are ruled out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import distillation

RNG = np.random.default_rng(0)
LOGITS, TEACHER = (jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32) for _ in range(2))
TARGETS = jnp.array([0, 5, 2, 2])


def written_out(weights_of):
    losses = []
    for s, t, y in zip(np.asarray(LOGITS, np.float64), np.asarray(TEACHER, np.float64), TARGETS, strict=True):
        order = [int(y), *(i for i in np.argsort(-t) if i != y)]
        weights = weights_of(t[order])
        losses.append(sum(w * (np.log(np.exp(s[order[k:]]).sum()) - s[order[k]]) for k, w in enumerate(weights)))
    return losses


@pytest.mark.parametrize(
    "weighting, weights_of",
    [
        (distillation.teacher, lambda t: np.exp(t / 2) / np.exp(t / 2).sum()),
        (distillation.uniform, lambda t: np.full(6, 1 / 6)),
        (distillation.top1, lambda t: np.eye(6)[0]),
        (distillation.position, lambda t: 2.0 ** np.arange(5, -1, -1) - 1),
    ],
)
def test_against_the_sum_written_out(weighting, weights_of):
    losses = distillation.pld(LOGITS, TEACHER, TARGETS, temperature=2.0, weighting=weighting, reduce=None)
    np.testing.assert_allclose(losses, written_out(weights_of), rtol=1e-5)


def test_top1_is_cross_entropy_and_the_teacher_is_a_constant():
    loss = distillation.pld(LOGITS, TEACHER, TARGETS, weighting=distillation.top1)
    np.testing.assert_allclose(loss, -jax.nn.log_softmax(LOGITS)[jnp.arange(4), TARGETS].mean(), rtol=1e-5)
    assert not jax.grad(distillation.pld, 1)(LOGITS, TEACHER, TARGETS).any()


def test_classes_that_the_student_rules_out_leave_the_ranking():
    logits = LOGITS.at[:, 1].set(-jnp.inf)
    value, slope = jax.value_and_grad(distillation.pld)(logits, TEACHER, TARGETS)
    assert np.isfinite(value) and np.isfinite(slope).all()
    both = distillation.pld(logits, TEACHER.at[:, 1].set(-jnp.inf), TARGETS)
    without = jnp.array([0, 2, 3, 4, 5])
    smaller = distillation.pld(LOGITS[:, without], TEACHER[:, without], jnp.array([0, 4, 1, 1]))
    np.testing.assert_allclose(both, smaller, rtol=1e-5)
    assert distillation.pld(LOGITS.at[:, 5].set(-jnp.inf), TEACHER, TARGETS) == jnp.inf


def test_a_target_outside_of_the_classes_shows_unless_masked():
    targets, where = TARGETS.at[1].set(-100), jnp.array([True, False, True, True])
    assert np.isnan(distillation.pld(LOGITS, TEACHER, targets))
    kept = distillation.pld(LOGITS[where], TEACHER[where], TARGETS[where])
    logits = LOGITS.at[1].set(jnp.nan)
    value, slope = jax.value_and_grad(distillation.pld)(logits, TEACHER, targets, where=where)
    np.testing.assert_allclose(value, kept, rtol=1e-6)
    assert np.isfinite(slope).all()


def test_wrong_settings_are_named():
    with pytest.raises(errors.UserError, match="temperature must be above 0, got 0"):
        distillation.pld(LOGITS, TEACHER, TARGETS, temperature=0)
    with pytest.raises(errors.UserError, match=r"the logits without their last axis has shape \(4,\), but targets"):
        distillation.pld(LOGITS, TEACHER, TARGETS[:, None])
