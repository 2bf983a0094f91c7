"""Losses that keep the entropy up: tokens on the last axis ``[..., K, T]``; leading axes are the batch.

``where [..., K, T]`` marks real response tokens; ``reduce=None`` gives one value per token, 0 where masked. The
selections couple the batch: a trainer computes them once on the global batch (``Method.prepare``) and hands every
micro-batch its rows; a direct call without them selects on the spot.
"""

import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.policy import ratios, regularize, select, surrogates
from rlx.policy.weights import constant, weigh
from rlx.types import Array, Reduce, check_shapes


def clip_cov(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    weights: Array | None = None,
    *,
    clip_low: float = 1.0,
    clip_high: float = 1.0,
    ratio: float = 2e-4,
    lower: float = 1.0,
    upper: float = 5.0,
    keep: Array | None = None,
    key: Array | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""Clip-Cov: PPO without the gradient of a few random tokens of high covariance.

    .. math:: \ell_t = k_t\,w_t \max(-A_t r_t,\; -A_t\,\mathrm{clip}(r_t, 1-l, 1+h)),\quad
       k_t = 0 \text{ for } \min(\max(\lfloor\rho n\rfloor, 1), \#C) \text{ tokens drawn from }
       C = \{t: a < (\log\pi_t - \overline{\log\pi})(A_t - \bar A) < b\}

    Tokens that PPO's clip drops are no candidates; dropped tokens stay in the denominator of the reduction.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights w; constants. None is 1.
      clip_low: l; 1 is the paper's recipe (verl's function defaults to 0.2).
      clip_high: h; as ``clip_low``.
      ratio: rho, fraction of the n real tokens that is dropped, in (0, 1].
      lower: a, exclusive bound in nats times advantage: it moves with the scale of the advantages.
      upper: b, exclusive.
      keep: ``[..., K, T]`` bool, k; None selects among these tokens (:func:`rlx.policy.select.clip_cov_keep`).
      key: random key of that selection, the same on every shard.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.
      axis_name: mapped axes the selection is global over.

    Raises:
      UserError: neither ``keep`` nor ``key`` is given, ``ratio`` is outside (0, 1], or the shapes disagree.

    >>> logprobs, advantages = jnp.array([[-1.0, -9.0, -9.0]]), jnp.array([[1.0, 0.0, 0.0]])
    >>> print(clip_cov(logprobs, logprobs, advantages, key=jax.random.key(0), reduce=None))
    [[ 0. -0. -0.]]

    References:
      Cui et al., *The Entropy Mechanism of RL for Reasoning Language Models*, arXiv:2505.22617.
    """
    check_shapes(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, weights=weights, where=where)
    bounds = {"clip_low": clip_low, "clip_high": clip_high, "lower": lower, "upper": upper}
    if keep is None:
        ambient = {"key": key, "where": where, "axis_name": axis_name}
        keep = select.clip_cov_keep(logprobs, old_logprobs, advantages, ratio=ratio, **bounds, **ambient)
    r = ratios.token(logprobs, old_logprobs, bound=ratios.OVERFLOW, where=where)
    loss = surrogates.clip(clip_low, clip_high)(r, constant(advantages, where), logprobs)
    return aggregate.finish(weigh(jnp.where(keep, loss, 0), weights, where), where, reduce)


def kl_cov(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    weights: Array | None = None,
    *,
    ratio: float = 2e-4,
    coefficient: float = 1.0,
    selected: Array | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""KL-Cov: the unclipped policy gradient, with a penalty on the few tokens of highest covariance.

    .. math:: \ell_t = w_t\left(-A_t r_t + c\,[t \in S]\,|\log\pi_t - \log\pi_{old,t}|\right),\quad
       S = \text{the } \max(\lfloor\rho n\rfloor, 1) \text{ largest } (\log\pi_t - \overline{\log\pi})(A_t - \bar A)

    The penalty's gradient is :math:`c\,\mathrm{sign}(\log\pi_t - \log\pi_{old,t})`, 0 at equality.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights w; constants. None is 1.
      ratio: rho, fraction of the n real tokens that is penalised, in (0, 1] (the paper's code takes it in percent).
      coefficient: c.
      selected: ``[..., K, T]`` bool, S; None selects among these tokens (:func:`rlx.policy.select.kl_cov_select`).
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.
      axis_name: mapped axes the selection is global over.

    Raises:
      UserError: ``ratio`` is outside (0, 1], or the shapes disagree.

    >>> print(kl_cov(jnp.array([[-1.0, -4.0]]), jnp.array([[-1.5, -4.0]]), jnp.array([[0.0]]), reduce=None))
    [[0.5 0. ]]

    References:
      Cui et al., *The Entropy Mechanism of RL for Reasoning Language Models*, arXiv:2505.22617.
    """
    check_shapes(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, weights=weights, where=where)
    if selected is None:
        selected = select.kl_cov_select(logprobs, advantages, ratio=ratio, where=where, axis_name=axis_name)
    r = ratios.token(logprobs, old_logprobs, bound=ratios.OVERFLOW, where=where)
    loss = surrogates.unclipped(r, constant(advantages, where), logprobs)
    penalty = coefficient * regularize.absolute.estimate(ratios.log_ratio(logprobs, old_logprobs, where=where))
    return aggregate.finish(weigh(loss + jnp.where(selected, penalty, 0), weights, where), where, reduce)
