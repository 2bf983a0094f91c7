"""ADPO of sampled responses: groups whose log-probabilities are anchored at the policy that sampled them.

Responses of a prompt stand on the axis K, tokens on the last axis: ``[..., K, T]``. ``where [..., K, T]`` marks real
tokens; a response without any is no member of its group. The family is a target or an order from the advantages, a
temperature, and a comparison of the anchored scores ``u``: cross-entropy, Plackett-Luce or pairs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.aggregate import mean
from rlx.policy import regularize
from rlx.policy.advantages import group_normalize
from rlx.policy.ratios import clamp
from rlx.preference import compare, lambda_rank
from rlx.preference.listwise import adpo_target
from rlx.preference.scores import log_ratio
from rlx.types import Array, Reduce, check_positive, check_shapes

EPSILON = 1e-8
"""Of the official code: added to a standard deviation, and to a probability inside a logarithm."""

_K3 = regularize.low_variance(80.0, jnp.inf)  # clamped nowhere that float32 can follow


def responses(like: Array, where: Array | None) -> Array:
    """Real members of a group, those that have a token: ``[..., K, T] -> [..., K]`` bool."""
    return jnp.ones(like.shape[:-1], bool) if where is None else where.any(-1)


def response_advantages(advantages: Array, like: Array, where: Array | None) -> Array:
    """The advantage of a response at its first real token, a constant: ``[..., K, 1 or T] -> [..., K]``.

    >>> print(response_advantages(jnp.array([[2.0], [3.0]]), jnp.zeros((2, 4)), None))
    [2. 3.]
    """
    real = jnp.broadcast_to(True if where is None else where, like.shape)
    first = real & (jnp.cumsum(real, -1) == 1)
    return jax.lax.stop_gradient(numerics.sum(jnp.broadcast_to(advantages, like.shape), -1, where=first))


class Anchored(NamedTuple):
    """Groups as lists.

    Attributes:
      scores: ``[..., K]`` anchored scores u.
      advantages: ``[..., K]``, a constant.
      where: ``[..., K]`` real members.
    """

    scores: Array
    advantages: Array
    where: Array


def anchored(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    *,
    tau: float = 1.0,
    length_normalize: bool = False,
    clip_log_ratio: float = jnp.inf,
    clip_score: float = jnp.inf,
    where: Array | None = None,
) -> Anchored:
    r"""Groups of responses as lists: :math:`u = \mathrm{clip}(\mathrm{clip}(d, \pm c)/\tau, \pm c')`, and advantages.

    .. math:: d = \log\pi(y) - \log\pi_{old}(y)

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the anchor; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]`` (:func:`response_advantages`).
      tau: temperature, above 0.
      length_normalize: d is the mean over tokens instead of the sum.
      clip_log_ratio: bound c of d; no gradient beyond it.
      clip_score: bound c' of u.
      where: ``[..., K, T]`` real tokens.

    Raises:
      UserError: tau is not above 0, or the shapes disagree.

    >>> new, old = jnp.array([[-1.0, -1.0]]), jnp.array([[-2.0, -2.0]])
    >>> print(anchored(new, old, jnp.zeros((1, 1)), tau=0.5, clip_log_ratio=1.5).scores)
    [3.]
    """
    check_shapes(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, where=where)
    check_positive(tau=tau)
    over_tokens = numerics.mean if length_normalize else numerics.sum
    ratio = clamp(over_tokens(log_ratio(logprobs, old_logprobs), -1, where=where), -clip_log_ratio, clip_log_ratio)
    score = clamp(ratio / tau, -clip_score, clip_score)
    return Anchored(score, response_advantages(advantages, logprobs, where), responses(logprobs, where))


def entropy_temperature(
    target: Array, *, tau: float = 0.8, alpha: float = 0.5, tau_min: float = 0.05, where: Array | None = None
) -> Array:
    r"""Temperature of a list, falling with the entropy of its target: a constant.

    .. math:: \tau_x = \max(\tau_{min}, \tau\,(1 - \alpha H(q)/\log K))

    Args:
      target: ``[..., K]`` target distribution.
      tau: base temperature.
      alpha: how far a uniform target lowers it, 0 for not at all.
      tau_min: least temperature.
      where: ``[..., K]`` real candidates.

    Returns:
      ``[...]``, a constant.

    >>> print(entropy_temperature(jnp.array([0.5, 0.5])))
    0.4
    """
    entropy = -numerics.sum(target * jnp.log(target + EPSILON), -1, where=where)
    relative = numerics.safe_divide(entropy, jnp.log(numerics.count(where, target, -1)))
    return jax.lax.stop_gradient(jnp.maximum(tau_min, tau * (1 - alpha * relative)))


def standardized_target(advantages: Array, *, beta_r: float = 0.5, where: Array | None = None) -> Array:
    r""":math:`q = \mathrm{softmax}((A - \bar A)/(\sigma_A\,\beta_r))`: uniform when all advantages are equal.

    >>> print(standardized_target(jnp.array([3.0, 3.0])))
    [0.5 0.5]
    """
    relative = group_normalize(advantages, epsilon=EPSILON, singleton="zero", where=where)
    return adpo_target(relative, beta_r=beta_r, where=where)


def tokens_per_list(old_logprobs: Array, *, where: Array | None = None, axis_name: numerics.AxisName = None) -> Array:
    """Real tokens of the batch over its groups with any: turns a mean over groups into one over tokens.

    >>> print(tokens_per_list(jnp.zeros((2, 3, 4))))
    12.0
    """
    real = responses(old_logprobs, where).any(-1)
    tokens = numerics.count(where, old_logprobs, axis_name=axis_name)
    return numerics.safe_divide(tokens, numerics.count(real, old_logprobs[..., 0, 0], axis_name=axis_name))


def adpo_listwise_tokens(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    *,
    tau: float = 0.8,
    beta_r: float = 0.5,
    alpha: float = 0.5,
    tau_min: float = 0.05,
    beta_kl: float = 0.0,
    list_tokens: Array | float | None = None,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""On-policy ADPO: cross-entropy of a group's anchored log-probabilities with the softmax of its advantages.

    .. math:: \ell = -\sum_i q_i\log\mathrm{softmax}(d/\tau_x)_i
       + \beta_{kl}\,\frac{1}{\bar n}\sum_t (e^{-d_t} - 1 + d_t),\quad
       q = \mathrm{softmax}\left(\frac{A - \bar A}{\sigma_A\,\beta_r}\right),\quad
       \tau_x = \max\left(\tau_{min}, \tau\left(1 - \alpha\frac{H(q)}{\log K}\right)\right)

    with d the sum of the token log-ratios :math:`d_t` and :math:`\bar n` the tokens per group of the batch, so that the
    penalty is a mean over tokens. A group whose advantages are all equal has a uniform target.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the policy that sampled, the anchor; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``, rewards do as well; a constant (:func:`response_advantages`).
      tau: temperature of the anchored policy, above 0.
      beta_r: temperature of the target, above 0.
      alpha: how far a uniform target lowers the temperature (:func:`entropy_temperature`), 0 for not at all.
      tau_min: least temperature.
      beta_kl: strength of the penalty.
      list_tokens: :math:`\bar n`; None computes it from the batch (:func:`tokens_per_list`).
      where: ``[..., K, T]`` real tokens.
      axis_name: mapped axes that :math:`\bar n` is global over.
      reduce: how groups become one number; None gives ``[...]``.

    Raises:
      UserError: a temperature is not above 0, or the shapes disagree.

    >>> logprobs = jnp.full((2, 3), -1.0)
    >>> print(f"{adpo_listwise_tokens(logprobs, logprobs, jnp.array([[1.0], [0.0]])):.4f}")
    0.6931

    References:
      *From Probability to Advantage: Unifying Alignment via Anchored Ranking* (ADPO), arXiv:2510.18913.
    """
    check_positive(tau=tau)
    d, advantage, real = anchored(logprobs, old_logprobs, advantages, where=where)
    target = standardized_target(advantage, beta_r=beta_r, where=real)
    temperature = entropy_temperature(target, tau=tau, alpha=alpha, tau_min=tau_min, where=real)
    if list_tokens is None:
        list_tokens = tokens_per_list(old_logprobs, where=where, axis_name=axis_name)
    drift = _K3.estimate(numerics.clean(log_ratio(logprobs, old_logprobs), where))
    penalty = numerics.safe_divide(beta_kl * numerics.sum(drift, (-2, -1), where=where), jnp.asarray(list_tokens))
    loss = compare.cross_entropy(d / temperature[..., None], target, real) + penalty
    return aggregate.finish(loss, real.any(-1), reduce)


def adpo_softmax(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    *,
    tau: float = 0.5,
    beta_r: float = 0.3,
    scale: float = 1.0,
    length_normalize: bool = True,
    clip_log_ratio: float = 5.0,
    clip_score: float = 10.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""ADPO's later softmax variant: mean token log-ratios, clipped, against the softmax of the raw advantages.

    .. math:: \ell = -c\sum_i q_i\log\mathrm{softmax}(u)_i,\quad q = \mathrm{softmax}(A/\beta_r)

    with u of :func:`anchored_scores`. The official ``scaled`` has c = 20; its ``direct`` is this loss.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the anchor; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      tau: temperature of the anchored policy, above 0.
      beta_r: temperature of the target, above 0.
      scale: factor c.
      length_normalize: mean log-ratio of the tokens instead of their sum.
      clip_log_ratio: bound of the log-ratio of a response.
      clip_score: bound of u.
      where: ``[..., K, T]`` real tokens.
      reduce: how groups become one number; None gives ``[...]``.

    Raises:
      UserError: a temperature is not above 0, or the shapes disagree.

    >>> logprobs = jnp.full((2, 3), -1.0)
    >>> print(f"{adpo_softmax(logprobs, logprobs, jnp.array([[1.0], [0.0]])):.4f}")
    0.6931

    References:
      *From Probability to Advantage: Unifying Alignment via Anchored Ranking* (ADPO), arXiv:2510.18913.
    """
    options = {"tau": tau, "length_normalize": length_normalize, "where": where}
    options |= {"clip_log_ratio": clip_log_ratio, "clip_score": clip_score}
    u, advantage, real = anchored(logprobs, old_logprobs, advantages, **options)
    losses = compare.cross_entropy(u, adpo_target(advantage, beta_r=beta_r, where=real), real)
    return aggregate.finish(scale * losses, real.any(-1), reduce)


def selections(
    score: Array,
    keys: Array,
    *,
    top_k: int | None = None,
    epsilon: float = 0.0,
    poly: float = 0.0,
    where: Array | None = None,
) -> tuple[Array, Array]:
    r"""Smoothed Plackett-Luce selections and which of them count: the first ``top_k`` that leave a choice.

    .. math:: \ell_k = \log\sum_{l\ge k} e^{u_l} - (1-\epsilon)\,u_k - \epsilon\,\bar u_{l\ge k},\quad
       \ell_k + \epsilon_1 (1 - e^{-\min(\ell_k, 20)})

    Args:
      score: ``[..., K]`` scores u.
      keys: ``[..., K]`` what the candidates are ranked by, descending; ties keep the given order.
      top_k: how many selections count; None for all.
      epsilon: weight of a uniform choice among those left.
      poly: weight of the polynomial term.
      where: ``[..., K]`` real candidates.

    Returns:
      The losses and which of them count, both ``[..., K]`` in the order of the ranking.

    >>> losses, counted = selections(jnp.zeros(3), jnp.zeros(3))
    >>> print(losses, counted)
    [1.0986123 0.6931472 0.       ] [ True  True False]
    """
    order = compare.descending(keys, where)
    terms, real = compare.plackett_luce(score, order, where)
    ranked = numerics.clean(jnp.take_along_axis(numerics.accumulate(score), order, -1), real)
    place = jnp.arange(score.shape[-1])
    left = real[..., None, :] & (place >= place[:, None])
    losses = terms + epsilon * (
        ranked - numerics.mean(jnp.broadcast_to(ranked[..., None, :], left.shape), -1, where=left)
    )
    counted = real & (left.sum(-1) > 1) & (place < (len(place) if top_k is None else top_k))
    return losses - poly * jnp.expm1(-clamp(losses, -jnp.inf, 20.0)), counted


def adpo_plackett_luce(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    *,
    tau: float = 0.5,
    temperature: float = 1.0,
    top_k: int | None = 3,
    epsilon: float = 0.1,
    poly: float = 1.0,
    length_normalize: bool = True,
    clip_log_ratio: float = 5.0,
    clip_score: float = 10.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""ADPO's ranking variant: the policy picks the responses in the order of their advantages.

    .. math:: \ell_k = \log\sum_{l\ge k} e^{u_{\pi_l}} - (1-\epsilon)\,u_{\pi_k} - \epsilon\,\bar u_{\pi_{l\ge k}},\quad
       \pi = \mathrm{argsort}(-A)

    plus ``poly`` times :math:`1 - e^{-\ell_k}`. A unit is a selection (:func:`selections`): the mean is over groups and
    selections alike. With ``top_k=1`` and nothing else it is the official ``infonce``.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the anchor; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; ties keep the given order. A constant.
      tau: temperature of the anchored policy, above 0.
      temperature: divides u after it has been clipped, above 0.
      top_k: how many selections of a group count; None for all.
      epsilon: label smoothing towards a uniform choice among the responses left.
      poly: weight of the polynomial term.
      length_normalize: mean log-ratio of the tokens instead of their sum.
      clip_log_ratio: bound of the log-ratio of a response.
      clip_score: bound of u.
      where: ``[..., K, T]`` real tokens.
      reduce: how selections become one number; None gives ``[..., K]``, best response first.

    Raises:
      UserError: a temperature is not above 0, or the shapes disagree.

    >>> logprobs = jnp.full((2, 3), -1.0)
    >>> print(f"{adpo_plackett_luce(logprobs, logprobs, jnp.array([[1.0], [0.0]]), poly=0.0):.4f}")
    0.6931

    References:
      *From Probability to Advantage: Unifying Alignment via Anchored Ranking* (ADPO), arXiv:2510.18913.
    """
    check_positive(temperature=temperature)
    options = {"tau": tau, "length_normalize": length_normalize, "where": where}
    options |= {"clip_log_ratio": clip_log_ratio, "clip_score": clip_score}
    u, advantage, real = anchored(logprobs, old_logprobs, advantages, **options)
    smoothing = {"top_k": top_k, "epsilon": epsilon, "poly": poly}
    return aggregate.finish(*selections(u / temperature, advantage, where=real, **smoothing), reduce)


def adpo_all_pairs(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    *,
    tau: float = 0.5,
    length_normalize: bool = True,
    clip_log_ratio: float = 5.0,
    clip_score: float = 10.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""ADPO's ``pairwise`` variant: RankNet of the anchored scores, over all pairs whose advantages differ.

    .. math:: \ell_{ij} = \log(1 + e^{-(u_i - u_j)}),\quad A_i > A_j

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the anchor; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; ties make no pair. A constant.
      tau: temperature of the anchored policy, above 0.
      length_normalize: mean log-ratio of the tokens instead of their sum.
      clip_log_ratio: bound of the log-ratio of a response.
      clip_score: bound of u.
      where: ``[..., K, T]`` real tokens.
      reduce: how pairs become one number, the mean over all pairs of the batch by default; None gives ``[..., K * K]``.

    Raises:
      UserError: tau is not above 0, or the shapes disagree.

    >>> logprobs = jnp.full((2, 3), -1.0)
    >>> print(f"{adpo_all_pairs(logprobs, logprobs, jnp.array([[1.0], [0.0]])):.4f}")
    0.6931

    References:
      *From Probability to Advantage: Unifying Alignment via Anchored Ranking* (ADPO), arXiv:2510.18913.
    """
    options = {"tau": tau, "length_normalize": length_normalize, "where": where}
    options |= {"clip_log_ratio": clip_log_ratio, "clip_score": clip_score}
    u, advantage, real = anchored(logprobs, old_logprobs, advantages, **options)
    return lambda_rank.ranknet(u, advantage, where=real, reduce=reduce)
