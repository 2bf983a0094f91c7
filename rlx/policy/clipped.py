"""Clipped policy-gradient losses: tokens on the last axis ``[..., K, T]``; leading axes are the batch.

``where [..., K, T]`` marks real response tokens; ``reduce=None`` gives one value per token, 0 where masked. All
aggregations of the literature are reductions (:mod:`rlx.aggregate`): ``token_mean``, ``sequence_mean``,
``sequence_sum``, ``constant(L)``.
"""

from rlx import aggregate
from rlx.policy import ratios, surrogates
from rlx.types import Array, Reduce, check_shapes


def ppo_clip_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    weights: Array | None = None,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    cap: float | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""Proximal policy optimisation, with asymmetric and dual clipping.

    .. math:: \ell_t = w_t \max(-A_t r_t,\; -A_t\,\mathrm{clip}(r_t, 1-l, 1+h)),\quad
       r_t = \exp(\mathrm{clamp}(\log\pi(y_t) - \log\pi_{old}(y_t), \pm 20))

    and with a dual clip c at most :math:`-w_t A_t c` where :math:`A_t < 0`. GRPO, Dr. GRPO, DAPO and NGRPO are this
    loss with their own advantages, bounds and reduction.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights w; constants. None is 1.
      clip_low: l; PPO's epsilon.
      clip_high: h; PPO's epsilon (0.2), DAPO's clip-higher is 0.28.
      dual_clip: c > 1. PPO has none, which is the default here; the dual-clip paper and verl's default are 3.0.
      cap: largest ratio of the unclipped branch (TRL's ``delta``); None is no cap.
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
    check_shapes(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, weights=weights, where=where)
    ratio = ratios.token(logprobs, old_logprobs, where=where)
    surrogate = surrogates.clip(clip_low, clip_high, dual=dual_clip, cap=cap)
    return surrogates.loss(surrogate, ratio, advantages, logprobs, weights, where, reduce)


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
    check_shapes(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, weights=weights, where=where)
    ratio = ratios.sequence(logprobs, old_logprobs, straight_through=straight_through, where=where)
    return surrogates.loss(surrogates.clip(clip_low, clip_high), ratio, advantages, logprobs, weights, where, reduce)
