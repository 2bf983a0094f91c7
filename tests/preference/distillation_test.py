"""Plackett-Luce distillation: against the sum written out, its weightings, and classes that are ruled out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
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


@pytest.mark.parametrize("name", sorted(distillation.WEIGHTINGS))
def test_a_config_names_the_weighting(name):
    by_name = distillation.pld(LOGITS, TEACHER, TARGETS, weighting=name)
    assert by_name == distillation.pld(LOGITS, TEACHER, TARGETS, weighting=getattr(distillation, name))
    assert rlx.build({"name": "pld", "weighting": name}).hyperparameters["weighting"] == name


def test_hinton_kd_of_the_teacher_itself_is_flat_and_alpha_one_is_cross_entropy():
    value, slope = jax.value_and_grad(lambda x: distillation.hinton_kd(x, LOGITS, TARGETS, alpha=0.0))(LOGITS)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    plain = distillation.hinton_kd(LOGITS, TEACHER, TARGETS, alpha=1.0)
    np.testing.assert_allclose(plain, -jax.nn.log_softmax(LOGITS)[jnp.arange(4), TARGETS].mean(), rtol=1e-5)


def test_hinton_kd_written_out():
    t, s = (np.asarray(x, np.float64) / 3 for x in (TEACHER, LOGITS))
    p = np.exp(t) / np.exp(t).sum(-1, keepdims=True)
    kl = (p * (np.log(p) - s + np.log(np.exp(s).sum(-1, keepdims=True)))).sum(-1)
    found = distillation.hinton_kd(LOGITS, TEACHER, TARGETS, alpha=0.0, temperature=3.0, reduce=None)
    np.testing.assert_allclose(found, 9 * kl, rtol=1e-4)


def test_what_the_teacher_holds_possible_must_not_be_ruled_out():
    logits = LOGITS.at[:, 1].set(-jnp.inf)
    assert distillation.hinton_kd(logits, TEACHER, TARGETS) == jnp.inf
    both = distillation.hinton_kd(logits, TEACHER.at[:, 1].set(-jnp.inf), TARGETS)
    assert np.isfinite(both)


def test_dist_does_not_see_how_sharp_the_student_is_where_two_classes_are_left():
    """With two classes the probabilities of an example are a line: any student that agrees in sign correlates."""
    logits, teacher = jnp.array([[1.0, -1.0], [-2.0, 2.0]]), jnp.array([[0.3, -0.3], [-0.1, 0.1]])
    assert abs(distillation.dist(logits, teacher, jnp.array([0, 1]), alpha=0.0)) < 1e-5
    opposite = distillation.dist(-logits, teacher, jnp.array([0, 1]), alpha=0.0)
    np.testing.assert_allclose(opposite, 4.0, rtol=1e-5)


def test_dist_leaves_masked_examples_out_of_the_classes_too():
    where = jnp.array([True, True, False, True])
    logits = LOGITS.at[2].set(jnp.nan)
    value, slope = jax.value_and_grad(distillation.dist)(logits, TEACHER, TARGETS, where=where)
    np.testing.assert_allclose(value, distillation.dist(LOGITS[where], TEACHER[where], TARGETS[where]), rtol=1e-5)
    assert np.isfinite(slope).all() and not slope[2].any()


def test_dist_refuses_to_be_split():
    assert not rlx.build("dist").splittable
    assert np.isnan(distillation.dist(LOGITS, TEACHER, TARGETS.at[0].set(-1)))


def test_wrong_weightings_are_named():
    with pytest.raises(errors.UserError, match="Unknown weighting 'uniforn'. Did you mean 'uniform'"):
        distillation.pld(LOGITS, TEACHER, TARGETS, weighting="uniforn")
    for loss in (distillation.hinton_kd, distillation.dist):
        with pytest.raises(errors.UserError, match="temperature must be above 0, got 0"):
            loss(LOGITS, TEACHER, TARGETS, temperature=0)
