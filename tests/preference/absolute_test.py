"""Absolute losses: BCO's threshold and its state, and that these losses see a constant added to both log-ratios."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors, method
from rlx.preference import absolute

POLICY, REFERENCE = jnp.array([[-3.0, -4.0], [-2.0, -9.0]]), jnp.array([[-3.5, -3.0], [-2.0, -8.0]])
ARRAYS = {"policy_logps": POLICY, "reference_logps": REFERENCE}
LOSSES = [absolute.nca_pair, absolute.sppo_hard, absolute.apo_down, lambda *a: absolute.bco_pair(*a, delta=0.0)]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_constant_on_both_sides_is_seen(loss):
    assert abs(loss(POLICY + 3, REFERENCE) - loss(POLICY, REFERENCE)) > 1e-4


def test_bco_against_the_mean_of_its_batch_is_not_moved_by_a_constant():
    moved, still = absolute.bco_pair(POLICY + 3, REFERENCE), absolute.bco_pair(POLICY, REFERENCE)
    np.testing.assert_allclose(moved, still, rtol=1e-6)


def test_the_threshold_is_the_mean_reward_of_whole_pairs_without_gradient():
    where = jnp.array([[True, True], [True, False]])
    assert absolute.mean_reward(POLICY, REFERENCE, beta=1.0, where=where) == -0.25
    free = jax.grad(lambda p: absolute.bco_pair(p, REFERENCE))(POLICY)
    held = jax.grad(lambda p: absolute.bco_pair(p, REFERENCE, delta=absolute.mean_reward(POLICY, REFERENCE)))(POLICY)
    np.testing.assert_array_equal(free, held)


def test_the_running_threshold_is_updated_before_it_is_used():
    """Mean rewards -0.375 and 0.625 (beta 1): the first step uses the first, the second their mean."""
    built = rlx.build({"name": "bco_pair", "beta": 1.0})
    _, start = built.init(jax.random.key(0), method.Shapes())
    state, found = start, []
    for shift in (0.0, 1.0):
        constants, state = built.prepare(ARRAYS | {"policy_logps": POLICY + shift}, {}, state, None)
        found.append(float(constants.shared["delta"]))
    np.testing.assert_allclose(found, [-0.375, 0.125])
    first = method.loss(built, ARRAYS, {}, start)
    np.testing.assert_allclose(first, absolute.bco_pair(POLICY, REFERENCE, beta=1.0), rtol=1e-6)


def test_the_threshold_of_the_method_is_an_option():
    for delta, expected in (("batch", None), (0.0, 0.0), (0.7, 0.7)):
        built = rlx.build({"name": "bco_pair", "delta": delta})
        found = method.loss(built, ARRAYS, {}, {})
        np.testing.assert_allclose(found, absolute.bco_pair(POLICY, REFERENCE, delta=expected), rtol=1e-6)
    with pytest.raises(errors.UserError, match=r"Unknown delta \(or a number\) 'runing'. Did you mean 'running'"):
        absolute.bco_pair_method(delta="runing")


def test_apo_zero_pulls_apart_and_apo_down_pushes_both_down():
    zero = jax.grad(rlx.apo_zero)(REFERENCE, REFERENCE)
    assert (zero[:, 0] < 0).all() and (zero[:, 1] > 0).all()
    down = jax.grad(rlx.apo_down)(REFERENCE + jnp.array([8.0, -8.0]), REFERENCE)
    assert (down > 0).all()


def test_wrong_arguments_are_named():
    with pytest.raises(errors.UserError, match="beta must be above 0, got 0"):
        absolute.sppo_hard(POLICY, REFERENCE, beta=0)
    for loss in LOSSES:
        with pytest.raises(errors.UserError, match=r"reference_logps has shape \(2, 3\), but policy_logps"):
            loss(POLICY, jnp.zeros((2, 3)))
