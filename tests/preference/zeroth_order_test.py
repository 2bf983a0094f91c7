"""Descent from rankings: against the edges written out, and on a quadratic."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import zeroth_order

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_against_the_edges_written_out(k):
    xi, order = RNG.normal(size=(6, 2)).astype(np.float32), RNG.permutation(6)
    edges = [(order[p], order[q]) for p in range(k) for q in range(p + 1, 6)]
    found = zeroth_order.zo_rank_gradient(xi, order[:k])
    np.testing.assert_allclose(found.gradient, sum(xi[j] - xi[i] for i, j in edges) / len(edges), rtol=1e-5)
    assert found.num_edges == len(edges) and found.weights.sum() == 0
    shifted = zeroth_order.zo_rank_gradient(xi + 5, order[:k]).gradient
    np.testing.assert_allclose(shifted, found.gradient, rtol=1e-3)


def test_rankings_alone_find_a_minimum():
    x = np.array([3.0, -2.0])
    for _ in range(60):
        xi = RNG.normal(size=(8, 2))
        order = np.argsort(np.square(x + 0.1 * xi).sum(-1))
        x = x - 0.1 * np.asarray(zeroth_order.zo_rank_gradient(jnp.asarray(xi, jnp.float32), order[:4]).gradient)
    assert np.abs(x).max() < 0.5


@pytest.mark.parametrize(("m", "k"), [(1, 1), (3, 0), (2, 3)])
def test_a_ranking_without_a_comparison_is_refused(m, k):
    with pytest.raises(errors.UserError, match=f"a ranking of {k} of {m} queries compares nothing"):
        zeroth_order.zo_rank_gradient(np.ones((m, 2)), np.arange(k))
