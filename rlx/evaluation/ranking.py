"""Metrics of rankings: candidates on the last axis ``[..., K]``, ranked by descending score, masked ones last."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.preference import compare, ranking
from rlx.types import Array, check_shapes


class RankingMetrics(NamedTuple):
    """Metrics of every list, each ``[...]``: the mean over lists is for the caller."""

    ndcg: Array
    dcg: Array
    mrr: Array
    recall: Array
    precision: Array
    average_precision: Array


def ranking_metrics(
    scores: Array,
    labels: Array,
    *,
    relevant_from: float = 1.0,
    topn: int | None = None,
    where: Array | None = None,
) -> RankingMetrics:
    r"""NDCG, DCG, reciprocal rank, recall, precision and average precision of lists, all cut at ``topn``.

    .. math:: DCG@n = \sum_{r_i\le n}\frac{2^{y_i}-1}{\log_2(1+r_i)},\quad
       AP@n = \frac{1}{|R|}\sum_{i\in R, r_i\le n}\frac{|\{j\in R: r_j\le r_i\}|}{r_i}

    DCG and NDCG use the graded labels, the others the relevant set R. Recall and average precision divide by all of R,
    precision by the smaller of n and the number of candidates. A list without gain, or without R, has 0.

    Args:
      scores: ``[..., K]`` scores; ties keep the given order.
      labels: ``[..., K]`` graded relevance.
      relevant_from: least label of a relevant candidate.
      topn: cutoff n; None ranks all.
      where: ``[..., K]`` real candidates.

    Raises:
      UserError: the shapes disagree.

    >>> found = ranking_metrics(jnp.array([3.0, 2.0, 1.0]), jnp.array([0, 1, 1]))
    >>> print(f"{found.mrr:.1f} {found.average_precision:.4f} {found.ndcg:.4f}")
    0.5 0.5833 0.6934

    References:
      Jarvelin and Kekalainen, *Cumulated gain-based evaluation of IR techniques*, TOIS 2002.
    """
    check_shapes(scores=scores, labels=labels, where=where)
    labels = jax.lax.stop_gradient(numerics.clean(numerics.accumulate(labels), where))
    gains, options = ranking.gain(labels), {"topn": topn, "where": where}
    dcg, ideal = (ranking.cumulative_gain(gains, keys, **options) for keys in (scores, gains))
    order = compare.descending(scores, where)
    real, relevant = (jnp.take_along_axis(x, order, -1) for x in _sets(labels, labels >= relevant_from, where))
    place = jnp.arange(1, labels.shape[-1] + 1)
    within = real & (place <= (len(place) if topn is None else topn))
    hits = relevant & within
    precisions = numerics.accumulate(jnp.cumsum(relevant, -1)) / place
    found, all_of_them = (numerics.count(x, labels, -1) for x in (hits, relevant))
    return RankingMetrics(
        ndcg=numerics.safe_divide(dcg, ideal),
        dcg=dcg,
        mrr=jnp.where(hits, 1 / numerics.accumulate(place), 0).max(-1),
        recall=numerics.safe_divide(found, all_of_them),
        precision=numerics.safe_divide(found, numerics.count(within, labels, -1)),
        average_precision=numerics.safe_divide(numerics.sum(precisions, -1, where=hits), all_of_them),
    )


def _sets(like: Array, relevant: Array, where: Array | None) -> tuple[Array, Array]:
    """The real candidates and the relevant ones among them."""
    real = jnp.broadcast_to(True if where is None else where, like.shape)
    return real, real & relevant
