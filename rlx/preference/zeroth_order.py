"""Descent from rankings alone: what to add to a point when only the order of its neighbours is known."""

from typing import NamedTuple

import jax.numpy as jnp

from rlx import errors, numerics
from rlx.types import Array


class RankGradient(NamedTuple):
    """A descent direction from a ranking.

    Attributes:
      gradient: ``[...]`` shaped like one perturbation; step along ``-gradient`` to minimise.
      weights: ``[M]`` weight of every perturbation before the division by the edges; they sum to 0.
      num_edges: comparisons that the ranking implies.
    """

    gradient: Array
    weights: Array
    num_edges: Array


def zo_rank_gradient(perturbations: Array, ranking: Array) -> RankGradient:
    r"""Zeroth-order gradient from an (m, k) ranking oracle: the k best of m queries, best first.

    .. math:: g = \frac{1}{|E|}\sum_{(i,j)\in E}(\xi_j - \xi_i),\quad |E| = \frac{k(k-1)}{2} + k(m-k)

    with E all pairs of which i is known to be better: every ranked query over those ranked after it and over all
    unranked ones. As one weighted sum: :math:`2p - (m-1)` at position p (from 0), k if unranked.

    Args:
      perturbations: ``[M, ...]`` directions :math:`\xi` of the queries :math:`x + \mu\xi`.
      ranking: ``[k]`` int, numbers of the best queries, best first, each once.

    Raises:
      UserError: no comparison (M = k = 1 or k = 0), or more ranks than queries.

    >>> print(zo_rank_gradient(jnp.array([[1.0], [-1.0], [5.0]]), jnp.array([1, 0])).gradient)
    [4.]

    References:
      Tang et al., *Zeroth-Order Optimization Meets Human Feedback* (ZO-RankSGD), arXiv:2303.03751.
    """
    perturbations, ranking = numerics.accumulate(perturbations), jnp.asarray(ranking)
    m, k = len(perturbations), len(ranking)
    if not 1 <= k <= m or m == 1:
        raise errors.UserError(f"a ranking of {k} of {m} queries compares nothing: rank at least 1 of at least 2.")
    places = 2 * jnp.arange(k, dtype=perturbations.dtype) - (m - 1)
    weights = jnp.full(m, k, perturbations.dtype).at[ranking].set(places)
    edges = k * (k - 1) // 2 + k * (m - k)
    gradient = jnp.tensordot(weights, perturbations, 1) / edges
    return RankGradient(gradient, weights, jnp.asarray(edges, perturbations.dtype))
