"""Clipped policy-gradient losses: tokens on the last axis ``[..., K, T]``; leading axes are the batch.

``where [..., K, T]`` marks real response tokens; ``reduce=None`` gives one value per token, 0 where masked. All
aggregations of the literature are reductions (:mod:`rlx.aggregate`): ``token_mean``, ``sequence_mean``,
``sequence_sum``, ``constant(L)``.
"""

import functools

import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.policy import ratios, regularize, surrogates
from rlx.policy.objective import policy_loss
from rlx.policy.small_parts import low_probability
from rlx.policy.weights import constant
from rlx.types import Array, Ratio, Reduce


def ppo_clip_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    weights: Array | None = None,
    reference_logprobs: Array | None = None,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    cap: float | None = None,
    ratio: Ratio = ratios.token,
    beta: float = 0.0,
    estimator: str | regularize.Estimator = "k3",
    correct_kl: bool = False,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""Proximal policy optimisation, with asymmetric and dual clipping.

    .. math:: \ell_t = w_t \max(-A_t r_t,\; -A_t\,\mathrm{clip}(r_t, 1-l, 1+h)),\quad
       r_t = \exp(\mathrm{clamp}(\log\pi(y_t) - \log\pi_{old}(y_t), \pm 20))

    and with a dual clip c at most :math:`-w_t A_t c` where :math:`A_t < 0`; plus :math:`\beta\,\mathrm{kl}_t`.
    GRPO, Dr. GRPO, DAPO and NGRPO are this loss with their own advantages, bounds and reduction.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights w; constants. None is 1.
      clip_low: l; PPO's epsilon.
      clip_high: h; PPO's epsilon (0.2), DAPO's clip-higher is 0.28.
      dual_clip: c > 1. PPO has none, which is the default here; the dual-clip paper and verl's default are 3.0.
      cap: largest ratio of the unclipped branch (TRL's ``delta``); None is no cap.
      ratio: r (:mod:`rlx.policy.ratios`): of the token, or of the whole response.
      beta: strength of the KL penalty to ``reference_logprobs`` ``[..., K, T]``, a constant.
      estimator: of that KL.
      correct_kl: multiply the KL by the ratio.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree, or ``dual_clip`` is not above 1.

    >>> loss = ppo_clip_loss(jnp.array([[-1.0, -2.0]]), jnp.array([[-2.0, -2.0]]), jnp.array([[1.0]]))
    >>> print(f"{loss:.1f}")
    -1.1

    References:
      Schulman et al., *Proximal Policy Optimization Algorithms*, arXiv:1707.06347; dual clip: arXiv:1912.09729;
      clip-higher: Yu et al., *DAPO*, arXiv:2503.14476.
    """
    surrogate = surrogates.clip(clip_low, clip_high, dual=dual_clip, cap=cap)
    penalty = {"beta": beta, "estimator": estimator, "correct_kl": correct_kl}
    arrays = (logprobs, old_logprobs, advantages, weights, reference_logprobs)
    return policy_loss(*arrays, ratio=ratio, surrogate=surrogate, **penalty, where=where, reduce=reduce)


def gspo_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    weights: Array | None = None,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    straight_through: bool = True,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.sequence_mean,
) -> Array:
    r"""Group sequence policy optimisation: PPO's clip on the ratio of the whole response.

    .. math:: \ell_t = w_t \max(-A_t s,\; -A_t\,\mathrm{clip}(s, 1-l, 1+h)),\quad
       s = \exp\Big(\frac1n \sum_t \log\frac{\pi(y_t)}{\pi_{old}(y_t)}\Big)

    The mean log-ratio is at most 10, as in verl.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights w; constants. None is 1.
      clip_low: l.
      clip_high: h.
      straight_through: True is the paper's GSPO-token (verl): each token carries its own share of the gradient. False
        differentiates s itself (TRL); the same unless advantages or weights vary within a response.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree.

    >>> loss = gspo_loss(jnp.array([[-1.0, -2.0]]), jnp.array([[-2.0, -1.0]]), jnp.array([[1.0]]))
    >>> print(f"{loss:.1f}")
    -1.0

    References:
      Zheng et al., *Group Sequence Policy Optimization*, arXiv:2507.18071.
    """
    ratio = ratios.sequence_straight_through if straight_through else ratios.sequence
    parts = {"ratio": ratio, "surrogate": surrogates.clip(clip_low, clip_high)}
    return policy_loss(logprobs, old_logprobs, advantages, weights, **parts, where=where, reduce=reduce)


def gmpo_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    weights: Array | None = None,
    *,
    clip_low: float = 0.4,
    clip_high: float = 0.4,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.sequence_mean,
) -> Array:
    r"""Geometric-mean policy optimisation: the geometric mean of ratios, each clipped in log space.

    .. math:: \ell_t = -\bar w A_t \exp\Big(\frac1n\sum_s \sigma_s\min(\sigma_s d_s,\;
       \sigma_s\,\mathrm{clip}(d_s, -l, h))\Big),\quad d_s = \log\frac{\pi(y_s)}{\pi_{old}(y_s)},\;
       \sigma_s = \mathrm{sign}\,A_s

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]``, at least 0; their geometric mean over the response is its weight.
      clip_low: l, in nats.
      clip_high: h, in nats.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree.

    >>> loss = gmpo_loss(jnp.array([[-1.0, -2.0]]), jnp.array([[-2.0, -2.0]]), jnp.array([[1.0]]))
    >>> print(f"{loss:.3f}")  # -exp(0.4 / 2)
    -1.221

    References:
      Zhao et al., *Geometric-Mean Policy Optimization*, arXiv:2507.20673.
    """
    ratio = functools.partial(ratios.geometric, low=clip_low, high=clip_high)
    options = {"ratio": ratio, "surrogate": surrogates.unclipped, "where": where, "reduce": reduce}
    return policy_loss(logprobs, old_logprobs, advantages, geometric_mean(weights, where), **options)


def geometric_mean(weights: Array | None, where: Array | None = None) -> Array | None:
    """Geometric mean over the tokens, ``[..., K, 1]``; None stays None.

    >>> print(geometric_mean(jnp.array([1.0, 4.0])))
    [2.]
    """
    if weights is None:
        return None
    logs = jnp.log(jnp.maximum(constant(weights, where, 1.0), jnp.finfo(jnp.float32).tiny))
    return jnp.exp(numerics.mean(logs, -1, where=where, keepdims=True))


def spo_probability_mask_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    weights: Array | None = None,
    *,
    clip: float = 0.2,
    threshold: float = 0.9,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""Segment policy optimisation: PPO on the tokens that were not certain, :math:`\pi_{old}(y_t) < \theta`.

    Certain tokens leave the mask: the denominator of the reduction shrinks too.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``, of a token's segment; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights; constants. None is 1.
      clip: half-width of the clip range.
      threshold: theta.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree.

    >>> old = jnp.log(jnp.array([[0.5, 0.95]]))
    >>> print(spo_probability_mask_loss(old, old, jnp.array([[1.0]]), reduce=None))
    [[-1.  0.]]

    References:
      Guo et al., *Segment Policy Optimization*, arXiv:2505.23564.
    """
    where = low_probability(old_logprobs, threshold=threshold, where=where)
    parts = {"ratio": functools.partial(ratios.token, bound=10.0), "surrogate": surrogates.clip(clip, clip)}
    return policy_loss(logprobs, old_logprobs, advantages, weights, **parts, where=where, reduce=reduce)
