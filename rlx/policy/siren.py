"""SIREN: the entropy of the peaks of every response, in the nucleus of the policy, held at that of the first batch.

Tokens stand on the last axis ``[..., K, T]``; leading axes are the batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics, signals
from rlx.method import Constants, Method, PyTree, Shapes, stateless, take
from rlx.policy.clipped import ppo_clip_loss
from rlx.policy.entropy_selections import peaks
from rlx.types import Array, Batch, Reduce, check_shapes


class PeakEntropy(NamedTuple):
    """The aggregated entropy of a batch, and what it is normalised by.

    Attributes:
      value: mean over responses of the mean entropy of their peaks.
      responses: that the mean is over.
      tokens: of the batch.
      policy: what the policy term is divided by.
    """

    value: Array
    responses: Array
    tokens: Array
    policy: Array


def peak_terms(top_p_entropy: Array, *, rho: float, where: Array | None = None) -> Array:
    """A token's share of its response's mean entropy of the peaks, ``[..., T]``; a response without peaks has none."""
    kept = peaks(top_p_entropy, rho=rho, where=where)
    entropy = numerics.clean(numerics.accumulate(top_p_entropy), kept)
    return numerics.safe_divide(entropy, numerics.count(kept, entropy, -1, keepdims=True))


def peak_entropy(
    top_p_entropy: Array,
    *,
    rho: float = 0.8,
    policy_aggregate: str | aggregate.Aggregation = "token_mean",
    count_empty: bool = False,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> PeakEntropy:
    """SIREN's aggregated entropy and its normalisers, over the whole batch. Arguments are those of :func:`siren`.

    >>> print(peak_entropy(jnp.array([[1.0, 3.0], [2.0, 2.0]]), rho=0.5).value)
    1.5
    """
    terms = peak_terms(top_p_entropy, rho=rho, where=where)
    real = jnp.ones(terms.shape, bool) if where is None else jnp.broadcast_to(where, terms.shape)
    rows = jnp.ones(terms.shape[:-1], bool) if count_empty else real.any(-1)
    responses = numerics.count(rows, terms[..., 0], axis_name=axis_name)
    count = aggregate.by_name(policy_aggregate).count
    total = numerics.psum(jnp.ones((), terms.dtype) if count is None else count(real).astype(terms.dtype), axis_name)
    value = numerics.safe_divide(numerics.sum(terms, axis_name=axis_name), responses)
    return PeakEntropy(value, responses, numerics.count(real, terms, axis_name=axis_name), total)


def siren(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    top_p_entropy: Array,
    *,
    anchor: float | Array = 0.0,
    coefficient: float = 0.005,
    rho: float = 0.8,
    clip_low: float = 0.28,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
    policy_aggregate: str | aggregate.Aggregation = "token_mean",
    count_empty: bool = False,
    statistics: PeakEntropy | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""Selective entropy regularisation: PPO that holds the entropy of uncertain tokens at an anchor.

    .. math:: L = L^{PPO} + c\,(\bar H - H_0)^2,\quad
       \bar H = \frac1B\sum_i \frac1{|P_i|}\sum_{t\in P_i} H^{p}_{i,t},\quad
       P_i = \{t : H^{p}_{i,t} > Q_\rho(H^{p}_i)\}

    with the entropy :math:`H^p` inside the nucleus. The square couples the batch: tokens carry its tangent at the
    batch's :math:`\bar H`, :math:`c\,(\bar H - H_0)^2 + 2c\,(\bar H - H_0)(\sum_t - \bar H)`, scaled so that their mean
    has the value and the gradient of L.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      top_p_entropy: ``[..., K, T]`` entropy of the policy renormalised over its nucleus (nats, p = 0.8).
      anchor: H_0; :func:`siren_method` takes that of the first batch.
      coefficient: c.
      rho: quantile above which a token of a response is a peak.
      clip_low: of PPO.
      clip_high: of PPO.
      dual_clip: of PPO; None: none.
      policy_aggregate: reduction of the policy term (official script: ``constant(T)``), whatever ``reduce`` is.
      count_empty: responses without tokens count in B, as released; False leaves padding out.
      statistics: of the batch, constants; None takes those of these tokens (:func:`peak_entropy`).
      where: ``[..., K, T]`` response tokens.
      reduce: the token mean, which the units are scaled for; None gives ``[..., K, T]``.
      axis_name: mapped axes the statistics are global over.

    Raises:
      UserError: ``rho`` is outside [0, 1], ``dual_clip`` not above 1, or the shapes disagree.

    >>> zeros = jnp.zeros((1, 2))
    >>> print(siren(zeros, zeros, zeros, jnp.array([[1.0, 3.0]]), anchor=1.0, coefficient=0.5))
    2.0

    References:
      Jiang et al., *Rethinking Entropy Regularization in Large Reasoning Models* (SIREN), arXiv:2509.25133.
    """
    check_shapes(logprobs=logprobs, top_p_entropy=top_p_entropy, where=where)
    if statistics is None:
        options = {"rho": rho, "policy_aggregate": policy_aggregate, "count_empty": count_empty, "where": where}
        statistics = jax.lax.stop_gradient(peak_entropy(top_p_entropy, **options, axis_name=axis_name))
    value, responses, tokens, total = statistics
    bounds = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
    policy = ppo_clip_loss(logprobs, old_logprobs, advantages, **bounds, where=where, reduce=None)
    real = jnp.broadcast_to(True if where is None else where, policy.shape)
    within = aggregate.by_name(policy_aggregate).weights(real)
    terms = peak_terms(top_p_entropy, rho=rho, where=where) * numerics.safe_divide(tokens, responses)
    distance = value - jax.lax.stop_gradient(anchor)
    square = jnp.square(distance) + 2 * distance * (terms - value)
    units = policy * within * numerics.safe_divide(tokens, total) + coefficient * square
    return aggregate.finish(units, where, reduce)


def siren_method(
    *,
    coefficient: float = 0.005,
    rho: float = 0.8,
    clip_low: float = 0.28,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
    policy_aggregate: str | aggregate.Aggregation = "token_mean",
    count_empty: bool = False,
    axis_name: numerics.AxisName = None,
) -> Method:
    """:func:`siren` anchored at the aggregated entropy of the first batch it sees. Keywords are those of :func:`siren`.

    >>> sorted(siren_method().init(None, rlx.method.Shapes())[1])
    ['anchor']
    """
    normalisers = {"rho": rho, "policy_aggregate": policy_aggregate, "count_empty": count_empty}
    bounds = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
    keywords = {"coefficient": coefficient, **normalisers, **bounds}
    lifted, anchored = stateless(siren, keywords=keywords, axis_name=axis_name), signals.first()

    def init(key: Array | None, shapes: Shapes) -> tuple[PyTree, PyTree]:
        return {}, {"anchor": anchored.init()}

    def prepare(batch: Batch, params: PyTree, state: PyTree, key: Array | None = None) -> tuple[Constants, PyTree]:
        entropy = take(batch, "top_p_entropy", lifted.name)
        found = peak_entropy(entropy, **normalisers, where=batch.get("where"), axis_name=axis_name)
        found = jax.lax.stop_gradient(found)
        anchor, new = anchored.update(found.value, state["anchor"])
        return Constants({"anchor": anchor, "statistics": found}, {}), {"anchor": new}

    return lifted._replace(
        init=init, prepare=prepare, prepare_needs=("top_p_entropy",), coupling="batch", hyperparameters=keywords
    )
