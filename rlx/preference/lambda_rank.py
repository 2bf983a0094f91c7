"""Lambda losses: the logistic loss of every ordered pair of a list, weighted by what exchanging the two would matter.

Candidates stand on the last axis ``[..., K]``, ``where [..., K]`` marks real ones. A unit is an ordered pair: the
losses are ``[..., K * K]`` before a reduction, and pairs whose labels tie are left out. Weights come from the labels
and the ranks by current score, without gradient.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.aggregate import mean, total
from rlx.policy.ratios import clamp
from rlx.preference import compare, links, named, ranking
from rlx.preference.scores import log_ratio
from rlx.types import Array, Reduce, check_positive, check_shapes


class Standing(NamedTuple):
    """What a weighting of pairs is made from; constants, 0 where masked.

    Attributes:
      labels: ``[..., K]`` graded relevance.
      gains: ``[..., K]`` gain of the labels, divided by the ideal DCG where the loss normalises.
      ranks: ``[..., K]`` rank by score, from 1.
      topn: cutoff of the metric, or None.
    """

    labels: Array
    gains: Array
    ranks: Array
    topn: int | None = None


Weighting = Callable[[Standing], Array]
"""``standing -> weights of the pairs [..., K, K]``."""


def unweighted(standing: Standing) -> Array:
    """1 for every pair: RankNet."""
    return jnp.ones_like(ranking.differences(standing.gains))


def label_difference(standing: Standing) -> Array:
    r""":math:`|y_i - y_j|`."""
    return jnp.abs(ranking.differences(standing.labels))


def lambdarank(standing: Standing) -> Array:
    r""":math:`|G_i - G_j|\,|D(r_i) - D(r_j)|`: the change of DCG when i and j trade places.

    >>> print(lambdarank(Standing(jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0]), jnp.array([3, 1]))))
    [[0.  0.5]
     [0.5 0. ]]
    """
    discounts = ranking.discount(standing.ranks, standing.topn)
    return jnp.abs(ranking.differences(standing.gains)) * jnp.abs(ranking.differences(discounts))


def ndcg1(standing: Standing) -> Array:
    r""":math:`G_i\,D(r_i)`, a bound of NDCG; it also weighs pairs whose labels tie or are the other way round."""
    weights = standing.gains * ranking.discount(standing.ranks)
    return jnp.broadcast_to(weights[..., None], (*weights.shape, weights.shape[-1]))


def ndcg2(standing: Standing) -> Array:
    r""":math:`|G_i - G_j|\,|D(|r_i - r_j|) - D(|r_i - r_j| + 1)|`, a tighter bound of NDCG.

    Pairs that reach beyond ``topn`` are divided by :math:`1 - D(\max(r_i, r_j))`.
    """
    apart = jnp.abs(ranking.differences(standing.ranks))
    steps = jnp.abs(ranking.discount(apart) - ranking.discount(apart + 1)) * (apart > 0)
    if standing.topn is not None:
        last = jnp.maximum(standing.ranks[..., :, None], standing.ranks[..., None, :])
        beyond = last > jnp.maximum(standing.topn, 1)
        steps = jnp.where(beyond, steps / (1 - ranking.discount(jnp.where(beyond, last, 2))), steps)
    return jnp.abs(ranking.differences(standing.gains)) * steps


def ndcg2pp(standing: Standing, mu: float = 10.0) -> Array:
    r""":math:`\mu\,w_{ndcg2} + w_{lambdarank}`."""
    return mu * ndcg2(standing) + lambdarank(standing)


def times_list_size(weighting: Weighting) -> Weighting:
    """A weighting times the (padded) number of candidates K, as rax scales it."""
    return lambda standing: weighting(standing) * standing.ranks.shape[-1]


WEIGHTINGS: dict[str, Weighting] = {
    "none": unweighted,
    "labeldiff": label_difference,
    "lambdarank": lambdarank,
    "ndcg1": ndcg1,
    "ndcg2": ndcg2,
    "ndcg2pp": ndcg2pp,
    "dcg": times_list_size(lambdarank),
    "dcg2": times_list_size(ndcg2),
}
"""What a config calls them; ``dcg`` and ``dcg2`` are rax's, the others allRank's and the papers'."""


def standing(
    scores: Array,
    labels: Array,
    *,
    normalize: bool = False,
    topn: int | None = None,
    floor: float = 0.0,
    where: Array | None = None,
) -> Standing:
    r"""Gains :math:`G = 2^y - 1` and ranks of a list, constants.

    Args:
      scores: ``[..., K]`` scores of the model.
      labels: ``[..., K]`` graded relevance.
      normalize: divide the gains by the ideal DCG of the list, cut at ``topn``; an ideal DCG of 0 leaves them.
      topn: cutoff of the metric.
      floor: least ideal DCG.
      where: ``[..., K]`` real candidates.

    >>> print(standing(jnp.array([0.0, 1.0]), jnp.array([2.0, 0.0]), normalize=True).gains)
    [1. 0.]
    """
    scores, labels = (jax.lax.stop_gradient(numerics.clean(numerics.accumulate(x), where)) for x in (scores, labels))
    gains = ranking.gain(labels)
    if normalize:
        ideal = jnp.maximum(ranking.cumulative_gain(gains, gains, topn=topn, where=where), floor)[..., None]
        gains = gains / jnp.where(ideal == 0, 1, ideal)
    return Standing(labels, gains, ranking.rank(scores, where), topn)


def lambda_weights(
    scores: Array,
    labels: Array,
    *,
    weighting: str | Weighting = "dcg",
    normalize: bool = False,
    topn: int | None = None,
    where: Array | None = None,
) -> Array:
    r"""Weights of all pairs of a list; constants.

    Args:
      scores: ``[..., K]`` scores of the model.
      labels: ``[..., K]`` graded relevance.
      weighting: a name of :data:`WEIGHTINGS` or a function of :class:`Standing`.
      normalize: divide the gains by the ideal DCG (:func:`standing`).
      topn: cutoff of the metric.
      where: ``[..., K]`` real candidates.

    Returns:
      ``[..., K, K]``; entries of masked candidates mean nothing.

    Raises:
      UserError: unknown weighting.

    >>> print(lambda_weights(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]), weighting="labeldiff"))
    [[0. 1.]
     [1. 0.]]
    """
    chosen = named.by_name(weighting, WEIGHTINGS, "weighting")
    return chosen(standing(scores, labels, normalize=normalize, topn=topn, where=where))


def lambdaloss(
    scores: Array,
    labels: Array,
    *,
    weighting: str | Weighting = "dcg",
    normalize: bool = False,
    topn: int | None = None,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""LambdaRank and LambdaLoss in rax's convention: weighted logistic losses, their mean over all pairs of the batch.

    .. math:: \ell_{ij} = \lambda_{ij}\,\log(1 + e^{-(s_i - s_j)}),\quad y_i > y_j

    with :math:`\lambda` of :func:`lambda_weights`: ``dcg`` :math:`K\,|\Delta G||\Delta D|`, ``dcg2``
    :math:`K\,|\Delta G|\,|D(|\Delta r|) - D(|\Delta r| + 1)|`, ``labeldiff`` :math:`|\Delta y|`, ``none`` 1.

    Args:
      scores: ``[..., K]`` scores of the model.
      labels: ``[..., K]`` graded relevance, larger is better; a constant.
      weighting: a name of :data:`WEIGHTINGS` or a function of :class:`Standing`.
      normalize: divide the gains by the ideal DCG of the list.
      topn: cutoff of the metric; None ranks all.
      where: ``[..., K]`` real candidates.
      reduce: how pairs become one number (``total`` sums them); None gives ``[..., K * K]``.

    Raises:
      UserError: unknown weighting, or the shapes disagree.

    >>> print(f"{lambdaloss(jnp.array([0.0, 0.0]), jnp.array([1.0, 0.0]), weighting='labeldiff'):.4f}")
    0.6931

    References:
      Burges et al., *Learning to Rank with Nonsmooth Cost Functions*, NeurIPS 2006; Wang et al., *The LambdaLoss
      Framework for Ranking Metric Optimization*, CIKM 2018.
    """
    check_shapes(scores=scores, labels=labels, where=where)
    options = {"weighting": weighting, "normalize": normalize, "topn": topn, "where": where}
    losses = links.logistic(ranking.differences(numerics.clean(numerics.accumulate(scores), where)))
    weighted = lambda_weights(scores, labels, **options) * losses
    return aggregate.finish(ranking.flat(weighted), ranking.flat(ranking.better(labels, where)), reduce)


def ranknet(scores: Array, labels: Array, *, where: Array | None = None, reduce: Reduce | None = mean) -> Array:
    r"""RankNet: logistic loss of every pair whose labels differ.

    .. math:: \ell_{ij} = \log(1 + e^{-(s_i - s_j)}),\quad y_i > y_j

    Args:
      scores: ``[..., K]`` scores of the model.
      labels: ``[..., K]`` relevance, larger is better; ties make no pair. A constant.
      where: ``[..., K]`` real candidates.
      reduce: ``mean`` is over all pairs of the batch, ``total`` sums them, ``sequence_mean`` is the mean over lists of
        the mean over their pairs; None gives ``[..., K * K]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(f"{ranknet(jnp.array([0.0, 0.0, 5.0]), jnp.array([1, 0, 1])):.4f}")
    0.3499

    References:
      Burges et al., *Learning to Rank using Gradient Descent*, ICML 2005.
    """
    return lambdaloss(scores, labels, weighting=unweighted, where=where, reduce=reduce)


def lambdaloss_allrank(
    scores: Array,
    labels: Array,
    *,
    weighting: str | Weighting = "lambdarank",
    sigma: float = 1.0,
    mu: float = 10.0,
    topn: int | None = None,
    base: float = 2.0,
    floor: float = 1e-10,
    where: Array | None = None,
    reduce: Reduce | None = total,
) -> Array:
    r"""The LambdaLoss framework in allRank's convention: gains over the ideal DCG, weights as powers, sums.

    .. math:: \ell_{ij} = -\log_b\max\left(\epsilon, \max(\epsilon, \sigma(\varsigma(s_i - s_j)))^{w_{ij}}\right),
       \quad y_i > y_j

    ``ndcg1`` sums over all pairs, ties, i = j and inverted ones too. Only pairs with both ranks within ``topn`` count.

    Args:
      scores: ``[..., K]`` scores of the model.
      labels: ``[..., K]`` graded relevance, larger is better; a constant.
      weighting: ``lambdarank``, ``ndcg1``, ``ndcg2``, ``ndcg2pp``, ``none``, or a function of :class:`Standing`.
      sigma: slope of the sigmoid, above 0.
      mu: weight of ``ndcg2`` in ``ndcg2pp``.
      topn: cutoff of ranks and of the ideal DCG (k there).
      base: b of the logarithm.
      floor: epsilon, which also is the least ideal DCG.
      where: ``[..., K]`` real candidates.
      reduce: how pairs become one number, the sum by default (``mean``: over all pairs of the batch); None gives
        ``[..., K * K]``.

    Raises:
      UserError: unknown weighting, sigma is not above 0, or the shapes disagree.

    >>> print(f"{lambdaloss_allrank(jnp.array([0.0, 0.0]), jnp.array([1.0, 0.0]), weighting='none'):.1f}")
    1.0

    References:
      Wang et al., *The LambdaLoss Framework for Ranking Metric Optimization*, CIKM 2018.
    """
    check_shapes(scores=scores, labels=labels, where=where)
    check_positive(sigma=sigma, floor=floor)
    chosen = named.by_name(weighting, WEIGHTINGS | {"ndcg2pp": functools.partial(ndcg2pp, mu=mu)}, "weighting")
    found = standing(scores, labels, normalize=True, topn=topn, floor=floor, where=where)
    most = -math.log(floor)
    logistic = links.logistic(sigma * ranking.differences(numerics.clean(numerics.accumulate(scores), where)))
    powers = clamp(chosen(found._replace(topn=None)) * clamp(logistic, 0, most), 0, most) / math.log(base)
    ranked = _within(found.ranks, topn, where)
    pairs = ranked if chosen is ndcg1 else ranked & ranking.better(labels)
    return aggregate.finish(ranking.flat(powers), ranking.flat(pairs), reduce)


def _within(ranks: Array, topn: int | None, where: Array | None) -> Array:
    """Pairs of real candidates that both rank within ``topn``: ``[..., K, K]``."""
    counted = jnp.ones(ranks.shape, bool) if where is None else where
    counted = counted if topn is None else counted & (ranks <= topn)
    return counted[..., :, None] & counted[..., None, :]


def lipo_lambda(
    policy_logps: Array,
    reference_logps: Array,
    labels: Array,
    *,
    beta: float = 0.05,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""LiPO-lambda: LambdaRank of the implicit rewards of a list of responses.

    .. math:: \ell = \sum_{\psi_i > \psi_j} |2^{\psi_i} - 2^{\psi_j}|
       \left|\frac{1}{\log(1+\tau_i)} - \frac{1}{\log(1+\tau_j)}\right| \log(1 + e^{-(s_i - s_j)}),\quad
       s = \beta\log\frac{\pi(y)}{\pi_{ref}(y)}

    with :math:`\tau` the rank by s and the natural logarithm.

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats).
      reference_logps: ``[..., K]`` the same under the reference policy; a constant.
      labels: ``[..., K]`` quality psi of the responses, in [0, 1] in the paper; a constant.
      beta: strength of the KL regularisation.
      where: ``[..., K]`` real candidates.
      reduce: how lists become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree.

    >>> logps = jnp.array([-1.0, -2.0])
    >>> print(f"{lipo_lambda(logps, logps, jnp.array([1.0, 0.0])):.4f}")
    0.3691

    References:
      Liu et al., *LiPO: Listwise Preference Optimization through Learning-to-Rank*, arXiv:2402.01878.
    """
    check_shapes(policy_logps=policy_logps, reference_logps=reference_logps, labels=labels, where=where)
    reward = beta * numerics.clean(log_ratio(policy_logps, reference_logps), where)
    weights = lambda_weights(reward, labels, weighting=lambdarank, where=where) / math.log(2)
    losses = weights * links.logistic(ranking.differences(reward))
    pairs = ranking.better(labels, where)
    return aggregate.finish(numerics.sum(losses, (-2, -1), where=pairs), compare.list_where(where), reduce)
