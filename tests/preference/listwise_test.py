"""Listwise losses: their optimum, ragged lists, ties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import listwise

REFERENCE, SCORES = jnp.array([-3.0, -1.0, -2.0]), jnp.array([0.5, -0.2, 1.0])


def test_adpo_is_flat_at_its_optimum():
    """pi proportional to pi_ref q^tau."""
    q = jax.nn.softmax(SCORES / 0.5)
    policy = REFERENCE + 0.7 * jnp.log(q)
    loss, slope = jax.value_and_grad(lambda p: listwise.adpo_listwise(p, REFERENCE, SCORES, tau=0.7))(policy)
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)
    np.testing.assert_allclose(loss, -(q * jnp.log(q)).sum(), rtol=1e-6)


def test_empty_lists_leave_the_mean_and_singletons_cost_nothing():
    policy, reference, scores = (jnp.stack([x] * 3) for x in (REFERENCE + 1, REFERENCE, SCORES))
    where = jnp.array([[True, True, True], [False, False, False], [False, True, False]])
    losses = listwise.adpo_listwise(policy, reference, scores, where=where, reduce=None)
    np.testing.assert_allclose(losses[1:], 0.0, atol=1e-6)
    np.testing.assert_allclose(listwise.adpo_listwise(policy, reference, scores, where=where), losses.sum() / 2)
    assert listwise.listmle(scores, scores, where=where, reduce=None)[2] == 0


@pytest.mark.parametrize("keywords", [{"tau": 0.0}, {"beta_r": -1.0}])
def test_temperatures_must_be_positive(keywords):
    with pytest.raises(errors.UserError, match="must be above 0, got"):
        listwise.adpo_listwise(REFERENCE, REFERENCE, SCORES, **keywords)


def test_a_list_of_two_is_a_pair():
    policy, reference, scores = REFERENCE[:2] + jnp.array([1.0, 0.0]), REFERENCE[:2], SCORES[:2]
    q = jax.nn.sigmoid((scores[0] - scores[1]) / 0.5)
    pair = listwise.adpo_pairwise(policy, reference, q, tau=0.6)
    np.testing.assert_allclose(listwise.adpo_listwise(policy, reference, scores, tau=0.6), pair, rtol=1e-6)


def test_listmle_by_hand_and_with_tied_labels():
    """Labels order 2, 0, 1; tied labels keep the given order."""
    s = np.asarray(SCORES, np.float64)
    expected = np.log(np.exp(s).sum()) - s[2] + np.log(np.exp(s[0]) + np.exp(s[1])) - s[0]
    np.testing.assert_allclose(listwise.listmle(SCORES, jnp.array([1, 0, 2])), expected, rtol=1e-6)
    tied, ordered = (listwise.listmle(SCORES, jnp.array(labels)) for labels in ([1, 1, 1], [2, 1, 0]))
    assert tied == ordered
    with pytest.raises(errors.UserError, match=r"labels has shape \(2,\), but scores has shape \(3,\)"):
        listwise.listmle(SCORES, jnp.zeros(2))


def test_listnet_by_hand():
    q, logs = jax.nn.softmax(jnp.array([1.0, 0.0, 2.0])), jax.nn.log_softmax(SCORES)
    np.testing.assert_allclose(listwise.listnet(SCORES, jnp.array([1, 0, 2])), -(q * logs).sum(), rtol=1e-6)
    alone = listwise.listnet(SCORES, SCORES, where=jnp.array([False, True, False]))
    np.testing.assert_allclose(alone, 0.0, atol=1e-6)
