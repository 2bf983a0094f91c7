"""Groups of users found from their comparisons."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.reward import pluralistic

RNG = np.random.default_rng(0)
GROUPS = np.arange(24) >= 18


def comparisons(users=GROUPS, each=12, features=4):
    """Users of two opposed tastes, the second a minority, judging random pairs."""
    pairs = RNG.normal(size=(len(users), each, 2, features))
    taste = np.where(users[:, None, None], -4.0, 4.0) * pairs[..., 0]
    first = RNG.random(taste.shape[:2]) < 1 / (1 + np.exp(taste[..., 1] - taste[..., 0]))
    return jnp.asarray(np.where(first[..., None, None], pairs, pairs[:, :, ::-1]), jnp.float32)


def test_a_minority_is_found_with_its_reward():
    found = pluralistic.maxmin_rlhf_mixture(comparisons())
    groups = np.asarray(found.groups)
    assert found.converged and max((groups == GROUPS).mean(), (groups != GROUPS).mean()) == 1
    weights = np.asarray(found.weights)[[groups[0], groups[-1]], 0]
    assert weights[0] > 1 and weights[1] < -1


def test_one_group_is_a_bradley_terry_fit():
    """At the optimum the slope of the penalised likelihood is 0."""
    features = comparisons(users=GROUPS[:18])
    found = pluralistic.maxmin_rlhf_mixture(features, groups=1, ridge=0.5, restarts=1, tolerance=1e-6)
    x = np.asarray(features[:, :, 0] - features[:, :, 1]).reshape(-1, 4)
    weights = np.asarray(found.weights[0])
    slope = (x / (1 + np.exp(x @ weights))[:, None]).sum(0) - 0.5 * weights
    np.testing.assert_allclose(slope, 0, atol=1e-3)
    np.testing.assert_allclose(found.loglik, -np.logaddexp(0, -x @ weights).sum(), rtol=1e-5)


def test_missing_comparisons_do_not_count():
    features, where = comparisons(), np.ones((24, 12), bool)
    where[::2, 8:] = False
    spoiled = jnp.where(where[..., None, None], features, jnp.nan)
    found, again = (pluralistic.maxmin_rlhf_mixture(x, where=where, restarts=2) for x in (features, spoiled))
    np.testing.assert_array_equal(found.groups, again.groups)
    np.testing.assert_array_equal(found.weights, again.weights)


def test_ties_go_to_the_lowest_group():
    assert not pluralistic.assign_users(jnp.zeros((3, 4, 2, 2))).groups.any()
    assert pluralistic.worst_group(jnp.zeros((3, 4))).group == 0


def test_wrong_settings_are_named():
    with pytest.raises(errors.UserError, match=r"features has shape \(24, 12, 2\): it wants \[users, comparisons, 2"):
        pluralistic.maxmin_rlhf_mixture(jnp.zeros((24, 12, 2)))
    with pytest.raises(errors.UserError, match="ridge must be above 0"):
        pluralistic.maxmin_rlhf_mixture(jnp.zeros((2, 3, 2, 4)), ridge=0)
    with pytest.raises(errors.UserError, match="where has shape"):
        pluralistic.assign_users(jnp.zeros((3, 4, 2, 2)), where=jnp.ones((4, 3), bool))


def test_shares_single_out_a_few_users_where_equal_groups_split_the_many():
    """80 users, 4 of them of the other taste, on noisy comparisons: the paper's likelihood is higher for a split."""
    few, rng = np.arange(80) >= 76, np.random.default_rng(3)
    pairs = rng.normal(size=(80, 20, 2, 12))
    taste = np.where(few[:, None, None], -1.0, 1.0) * pairs[..., 0]
    first = rng.random(taste.shape[:2]) < 1 / (1 + np.exp(taste[..., 1] - taste[..., 0]))
    features = jnp.asarray(np.where(first[..., None, None], pairs, pairs[:, :, ::-1]), jnp.float32)
    agreement = {}
    for shares in (False, True):
        groups = np.asarray(pluralistic.maxmin_rlhf_mixture(features, shares=shares, restarts=8).groups)
        agreement[shares] = max((groups == few).mean(), (groups != few).mean())
    assert agreement[True] > 0.95 > 0.8 > agreement[False]
