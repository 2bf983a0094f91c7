"""The reward of a ranking that a model has written down."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.preference import ranking
from rlx.types import Array, check_shapes


class GroupRankReward(NamedTuple):
    """GroupRank's reward and what it is made of, each ``[...]``; constants."""

    reward: Array
    group_reward: Array
    ndcg: Array
    recall: Array
    divergence: Array


def grouprank_reward(
    scores: Array,
    labels: Array,
    correct: Array,
    predicted_probs: Array,
    target_probs: Array,
    format_status: Array,
    *,
    gamma: float = 0.2,
    epsilon: float = 0.1,
    topn: int = 10,
    base: float = math.e,
    where: Array | None = None,
) -> GroupRankReward:
    r"""GroupRank's reward of a scored group of documents.

    .. math:: R = NDCG@n + \gamma\,Recall@n + \epsilon\,(1 - JS(P, Q))

    if the answer could be read, -0.1 if only its JSON could not, -0.5 otherwise. The gain is linear:
    :math:`DCG@n = \sum_{r_i\le n} y_i/\log_2(1 + r_i)`.

    Args:
      scores: ``[..., K]`` scores that the model gave the documents.
      labels: ``[..., K]`` gold relevance.
      correct: ``[..., K]`` 1 for relevant documents.
      predicted_probs: ``[..., K]`` P, the scores as a distribution.
      target_probs: ``[..., K]`` Q, the gold scores as a distribution.
      format_status: ``[...]`` int: 0 valid, 1 tags right but JSON invalid, 2 otherwise.
      gamma: weight of the recall.
      epsilon: weight of the agreement of the distributions.
      topn: cutoff n of NDCG and recall.
      base: of the logarithm in the Jensen-Shannon divergence; with 2 it is at most 1.
      where: ``[..., K]`` real documents.

    Raises:
      UserError: the shapes disagree.

    >>> p = jnp.array([0.75, 0.25])
    >>> print(f"{grouprank_reward(p, jnp.array([1.0, 0.0]), jnp.array([1, 0]), p, p, jnp.array(0)).reward:.1f}")
    1.3

    References:
      *GroupRank: A Groupwise Reranking Paradigm*, arXiv:2511.11653.
    """
    arrays = {"labels": labels, "correct": correct, "predicted_probs": predicted_probs, "target_probs": target_probs}
    check_shapes(scores=scores, **arrays, where=where)
    check_shapes(**{"format_status": format_status, "the scores without their last axis": scores[..., 0]})
    gains, relevant = (numerics.clean(numerics.accumulate(x), where) for x in (labels, correct))
    ideal = ranking.cumulative_gain(gains, gains, topn=topn, where=where)
    ndcg = numerics.safe_divide(ranking.cumulative_gain(gains, scores, topn=topn, where=where), ideal)
    found = numerics.sum(relevant * (ranking.rank(scores, where) <= topn), -1, where=where)
    recall = numerics.safe_divide(found, numerics.sum(relevant, -1, where=where))
    js = jensen_shannon(predicted_probs, target_probs, where=where) / math.log(base)
    group = ndcg + gamma * recall + epsilon * (1 - js)
    reward = jnp.where(format_status == 0, group, jnp.where(format_status == 1, -0.1, -0.5))
    return jax.lax.stop_gradient(GroupRankReward(reward, group, ndcg, recall, js))


def jensen_shannon(p: Array, q: Array, *, where: Array | None = None) -> Array:
    r""":math:`\frac{1}{2}KL(p\|m) + \frac{1}{2}KL(q\|m)` with :math:`m = (p+q)/2`, in nats: ``[..., K] -> [...]``.

    >>> print(f"{jensen_shannon(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])):.4f}")
    0.6931
    """
    p, q = (numerics.clean(numerics.accumulate(x), where) for x in (p, q))
    of_p, of_q = (x * jnp.log(jnp.where(x > 0, x / jnp.where(x > 0, (p + q) / 2, 1), 1)) for x in (p, q))
    return numerics.sum(of_p + of_q, -1, where=where) / 2
