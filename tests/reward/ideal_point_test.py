"""PAL's losses: where prototypes live, coincident points, names of the parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.reward import ideal_point

RNG = np.random.default_rng(0)
ITEMS, POINTS = jnp.asarray(RNG.normal(size=(3, 2, 4)), jnp.float32), jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)
LOGITS, PROTOTYPES = jnp.array([0.5, -0.5]), jnp.asarray(RNG.normal(size=(2, 4)), jnp.float32)


def test_an_item_at_the_ideal_point_has_a_finite_slope():
    items = ITEMS.at[:, 0].set(POINTS)
    for preference in ("distance", "angle"):
        slopes = jax.grad(ideal_point.pal, (0, 1))(items, POINTS, preference=preference)
        assert all(np.isfinite(slope).all() for slope in slopes)
        assert ideal_point.pal(items, items[:, 0], preference=preference, reduce=None).shape == (3,)


def test_learners_agree_under_a_linear_projector():
    matrix = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
    project = lambda x: x @ matrix  # noqa: E731
    found = {
        name: ideal_point.ideal_points(LOGITS, PROTOTYPES, learner=name, project=project) for name in ("f(P)w", "f(Pw)")
    }
    np.testing.assert_allclose(found["f(P)w"], found["f(Pw)"], rtol=1e-5)
    unit = ideal_point.ideal_points(jnp.array([50.0, -50.0]), PROTOTYPES, learner="|f(P)|w", project=project)
    np.testing.assert_allclose(jnp.linalg.norm(unit), 1, rtol=1e-5)


def test_a_row_may_have_prototypes_of_its_own():
    prototypes = jnp.stack([PROTOTYPES, 2 * PROTOTYPES])
    found = ideal_point.ideal_points(jnp.stack([LOGITS] * 2), prototypes)
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-6)


def test_the_scale_of_the_angle_is_capped():
    losses = [ideal_point.pal(ITEMS, POINTS, preference="angle", logit_scale=s) for s in (np.log(100.0), 9.0)]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_wrong_settings_are_named():
    with pytest.raises(errors.UserError, match="preference must be one of distance, angle, got 'dist'"):
        ideal_point.pal(ITEMS, POINTS, preference="dist")
    with pytest.raises(
        errors.UserError, match="loss must be one of hinge, hinge_smooth, logistic, got 'hing'. Did you"
    ):
        ideal_point.pal(ITEMS, POINTS, loss="hing")
    with pytest.raises(errors.UserError, match="learner must be one of Pw, .*, got 'wP'"):
        ideal_point.ideal_points(LOGITS, PROTOTYPES, learner="wP")
    with pytest.raises(errors.UserError, match="ideal_points has shape"):
        ideal_point.pal(ITEMS, POINTS[:2])
