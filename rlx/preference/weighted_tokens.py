"""Pairwise losses that weigh tokens or pairs by what single tokens say: ``[..., 2, T]``, chosen first.

A unit is a pair. ``where [..., 2, T]`` marks response tokens; a response without any counts as margin 0, a pair
without any is left out.
"""

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.aggregate import mean
from rlx.preference import labels, links, scores, token_scores
from rlx.types import Array, Link, Reduce, check_shapes


def shared_length_weights(like: Array, alpha: float | Array, where: Array | None = None) -> Array:
    r"""1 for the tokens up to the shorter length of a pair, alpha for those beyond it: ``[..., 2, T]``.

    >>> where = jnp.array([[True, True, True], [True, False, False]])
    >>> print(shared_length_weights(jnp.zeros((2, 3)), 0.5, where)[0])
    [1.  0.5 0.5]
    """
    shorter = token_scores.token_count(like, where).min(-1)[..., None, None]
    weights = jnp.where(token_scores.positions(like, where) <= shorter, 1, alpha)
    return weights.astype(numerics.accumulate(like).dtype)


def ld_dpo(
    logprobs: Array,
    reference_logprobs: Array,
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Length-desensitised DPO: tokens beyond the shorter of the two lengths weigh less, in policy and reference.

    .. math:: \ell = -\log\sigma\left(\beta\,(s_w - s_l)\right),\quad
       s = \sum_{t \le L} d_t + \alpha \sum_{t > L} d_t,\quad L = \min(|y_w|, |y_l|),\quad
       d_t = \log\frac{\pi(y_t)}{\pi_{ref}(y_t)}

    ``alpha=1`` is DPO, ``alpha=0`` cuts the longer response off.

    Args:
      logprobs: ``[..., 2, T]`` token log-probabilities under the policy (nats), chosen first.
      reference_logprobs: ``[..., 2, T]`` the same under the reference policy; a constant.
      beta: strength of the KL regularisation.
      alpha: weight of the tokens beyond the shorter length, in [0, 1].
      where: ``[..., 2, T]`` response tokens.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or there are not two candidates.

    >>> policy, reference = jnp.array([[-1.0, -1.0], [-2.0, -1.0]]), jnp.full((2, 2), -1.0)
    >>> print(f"{ld_dpo(policy, reference, beta=1.0):.4f}")
    0.3133

    References:
      Liu et al., *Length Desensitization in Direct Preference Optimization*, arXiv:2409.06411.
    """
    token_scores.check_token_pairs("ld_dpo", logprobs=logprobs, reference_logprobs=reference_logprobs, where=where)
    weights = shared_length_weights(logprobs, alpha, where)
    kept = weights != 0  # so that 0 * -inf is 0
    kept = kept if where is None else kept & where
    score = token_scores.weighted_sum(weights, scores.log_ratio(logprobs, reference_logprobs), kept)
    return token_scores.compare_responses(beta * score, labels.hard, links.logistic, where, reduce)


LARGEST_LOG_WEIGHT = 60.0
"""No weight of a vocabulary below e^30 tokens gets here: a response weighs at most its size."""


def wpo_weights(logprobs: Array, renyi2: Array, *, maximum: float = jnp.inf, where: Array | None = None) -> Array:
    r"""How likely the policy itself would write the responses of a pair, relative to its own samples: ``[...]``.

    .. math:: w = w_w\,w_l,\quad
       w_i = \exp\frac{1}{|y_i|}\sum_t \left[\log\pi(y_{i,t}) - \log\sum_v \pi(v \mid s_{i,t})^2\right]

    Args:
      logprobs: ``[..., 2, T]`` token log-probabilities under the policy (nats).
      renyi2: ``[..., 2, T]`` :math:`-\log\sum_v \pi(v)^2` at the tokens.
      maximum: bound of the product (TRL up to 0.24: 1).
      where: ``[..., 2, T]`` response tokens.

    Returns:
      A constant; 1 for a pair without tokens.

    >>> print(wpo_weights(jnp.log(jnp.full((2, 3), 0.5)), jnp.log(jnp.full((2, 3), 4.0))))
    4.0
    """
    check_shapes(logprobs=logprobs, renyi2=renyi2, where=where)
    surplus = numerics.accumulate(logprobs) + numerics.accumulate(renyi2)
    exponent = jnp.minimum(numerics.mean(surplus, -1, where=where).sum(-1), LARGEST_LOG_WEIGHT)
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(exponent), maximum))


def wpo(
    logprobs: Array,
    renyi2: Array,
    reference_logprobs: Array,
    *,
    beta: float = 0.1,
    maximum: float = jnp.inf,
    link: Link = links.logistic,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Weighted preference optimisation: DPO, each pair weighted by how close to on-policy it is.

    .. math:: \ell = -w \log\sigma(\beta m)

    with w of :func:`wpo_weights`; the weights are not normalised over the batch.

    Args:
      logprobs: ``[..., 2, T]`` token log-probabilities under the policy (nats), chosen first.
      renyi2: ``[..., 2, T]`` :math:`-\log\sum_v \pi(v)^2` of the policy at the tokens; a constant.
      reference_logprobs: ``[..., 2, T]`` the log-probabilities under the reference policy; a constant.
      beta: strength of the KL regularisation.
      maximum: bound of the weight of a pair (TRL up to 0.24: 1).
      link: loss of a margin (:mod:`rlx.preference.links`).
      where: ``[..., 2, T]`` response tokens.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or there are not two candidates.

    >>> policy, reference = jnp.log(jnp.full((2, 3), 0.5)), jnp.zeros((2, 3))
    >>> print(f"{wpo(policy, -policy, reference):.4f}")
    0.6931

    References:
      Zhou et al., *WPO: Enhancing RLHF with Weighted Preference Optimization*, arXiv:2406.11827.
    """
    token_scores.check_token_pairs("wpo", logprobs=logprobs, reference_logprobs=reference_logprobs, where=where)
    score = beta * numerics.sum(scores.log_ratio(logprobs, reference_logprobs), -1, where=where)
    losses = token_scores.compare_responses(score, labels.hard, link, where, None)
    weights = wpo_weights(logprobs, renyi2, maximum=maximum, where=where)
    return aggregate.finish(weights * losses, token_scores.pair_where(where), reduce)
