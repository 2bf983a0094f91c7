"""Comparisons: masks, order, and the Plackett-Luce model against counting all rankings."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.aggregate import mean
from rlx.preference import compare, links


def test_labels_and_margins_of_masked_pairs_are_invisible():
    where = jnp.array([True, False])

    def loss(margin, label):
        return compare.margins(margin, label, links.logistic, where, mean)

    value, slopes = jax.value_and_grad(loss, (0, 1))(jnp.array([1.0, jnp.nan]), jnp.array([0.5, jnp.nan]))
    np.testing.assert_allclose(value, loss(jnp.array([1.0, 5.0]), jnp.array([0.5, 0.0])))
    assert np.isfinite(slopes).all() and slopes[0][1] == slopes[1][1] == 0


def test_a_label_per_response_is_refused_where_one_per_pair_is_meant():
    with pytest.raises(errors.UserError, match=r"label has shape \(3, 2\), but margin has shape \(3,\)"):
        compare.margins(jnp.zeros(3), jnp.ones((3, 2)), links.logistic, None, None)
    with pytest.raises(errors.UserError, match=r"required has shape \(2,\), but margin has shape \(3,\)"):
        compare.beyond(jnp.zeros(3), jnp.ones(2))


def test_cross_entropy_of_an_empty_list_and_of_an_impossible_candidate():
    score = jnp.array([[0.0, 0.0, -jnp.inf], [0.0, 1.0, 2.0]])
    target = jnp.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    where = jnp.array([[True] * 3, [False] * 3])
    np.testing.assert_allclose(compare.cross_entropy(score, target, where), [np.log(2), 0.0], rtol=1e-6)
    slopes = jax.grad(lambda s: compare.cross_entropy(s, target, where).sum())(score)
    assert np.isfinite(slopes).all()


def test_plackett_luce_sums_to_one_over_all_rankings():
    score, where = jnp.array([0.3, -1.0, 9.0, 2.0]), jnp.array([True, True, False, True])
    orders = jnp.array([[*order, 2] for order in itertools.permutations((0, 1, 3))])
    terms, real = compare.plackett_luce(jnp.broadcast_to(score, orders.shape), orders, jnp.broadcast_to(where, (6, 4)))
    np.testing.assert_allclose(np.exp(-terms.sum(-1)).sum(), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(real.sum(-1), 3)


def test_descending_puts_ties_in_order_and_masked_last():
    keys, where = jnp.array([1.0, jnp.inf, 1.0, jnp.nan, -jnp.inf]), jnp.array([True, True, True, False, True])
    np.testing.assert_array_equal(compare.descending(keys, where), [1, 0, 2, 4, 3])


def test_apart_counts_pairs_whole():
    where = jnp.array([[True, True], [True, False]])
    units = compare.apart(jnp.array([[2.0, -3.0], [1.0, jnp.nan]]), links.hinge, where, None)
    np.testing.assert_array_equal(units, [0.0, 0.0])
    assert compare.apart(jnp.array([0.5, 0.5]), links.hinge, None, mean) == 2.0


def test_partners_of_equal_rank_pass_over_what_is_masked():
    keys, values = jnp.array([3.0, jnp.nan, 1.0, 2.0]), jnp.array([30.0, -jnp.inf, 10.0, 20.0])
    found = compare.of_equal_rank(keys, values, jnp.array([True, False, True, True]))
    np.testing.assert_array_equal(found, [30.0, 0.0, 10.0, 20.0])
    np.testing.assert_array_equal(compare.of_equal_rank(jnp.array([1.0, 1.0]), jnp.array([5.0, 4.0])), [4.0, 5.0])
