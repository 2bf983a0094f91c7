"""The REC and RED losses: off-policy REINFORCE with clipping as a selection; tokens on the last axis.

``where [..., K, T]`` marks real response tokens; ``reduce=None`` gives one value per token, 0 where masked.
"""

import functools

from rlx import aggregate
from rlx.policy import importance, ratios, regularize, surrogates
from rlx.policy.objective import policy_loss
from rlx.types import Array, Reduce

unbounded = functools.partial(ratios.token, bound=ratios.OVERFLOW)


def rec_one_side_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    weight: importance.Weight = importance.uniform,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""REC-OneSide: REINFORCE on the tokens that PPO's clip trains on.

    .. math:: \ell_t = -\mathrm{sg}[w(r_t, A_t)]\,A_t \log\pi(y_t)
       \;\text{ where } A_t \ge 0, r_t \le 1+h \;\text{ or }\; A_t \le 0, r_t \ge 1-l, \text{ else } 0

    With ``weight=importance.importance`` the gradient is that of PPO. Dropped tokens stay in the denominator.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the policy that sampled; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      clip_low: l.
      clip_high: h.
      weight: w: ``uniform``, ``importance`` (r) or ``exponential(T)`` of :mod:`rlx.policy.importance`.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree.

    >>> logprobs, old = jnp.array([[-1.0, -1.0]]), jnp.array([[-1.1, -2.0]])
    >>> print(rec_one_side_loss(logprobs, old, jnp.array([[1.0]]), reduce=None))
    [[1. 0.]]

    References:
      Yao et al., *Group-Relative REINFORCE Is Secretly an Off-Policy Algorithm*, arXiv:2509.24203.
    """
    parts = {"ratio": unbounded, "surrogate": surrogates.rec_one_side(clip_low, clip_high, weight)}
    return policy_loss(logprobs, old_logprobs, advantages, **parts, where=where, reduce=reduce)


def rec_two_side_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    weight: importance.Weight = importance.uniform,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""REC-TwoSide: REINFORCE on the tokens with :math:`1-l \le r_t \le 1+h`, whatever the sign of their advantage.

    .. math:: \ell_t = -\mathrm{sg}[w(r_t, A_t)]\,A_t \log\pi(y_t)\,[1-l \le r_t \le 1+h]

    Arguments and errors are those of :func:`rec_one_side_loss`; shapes ``[..., K, T]``, log-probabilities in nats.

    >>> logprobs, old = jnp.array([[-1.0, -2.0]]), jnp.array([[-1.1, -1.0]])
    >>> print(rec_two_side_loss(logprobs, old, jnp.array([[1.0]]), reduce=None))
    [[1. 0.]]

    References:
      Yao et al., *Group-Relative REINFORCE Is Secretly an Off-Policy Algorithm*, arXiv:2509.24203.
    """
    parts = {"ratio": unbounded, "surrogate": surrogates.rec_two_side(clip_low, clip_high, weight)}
    return policy_loss(logprobs, old_logprobs, advantages, **parts, where=where, reduce=reduce)


def rec_ring_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    outer_low: float = 0.6,
    outer_high: float = 2.0,
    weight: importance.Weight = importance.uniform,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""REC-Ring: REC-TwoSide, and tokens far outside whose gradient pulls them back.

    .. math:: \ell_t = -\mathrm{sg}[w(r_t, A_t)]\,A_t \log\pi(y_t) \;\text{ where } 1-l \le r_t \le 1+h,
       \;\text{ or } A_t \ge 0, r_t \le 1-l', \;\text{ or } A_t \le 0, r_t \ge 1+h'

    Arguments are those of :func:`rec_one_side_loss`, and ``outer_low``, ``outer_high``: l', h' of the outer ring;
    shapes ``[..., K, T]``, log-probabilities in nats.

    Raises:
      UserError: the shapes disagree.

    >>> logprobs, old = jnp.array([[-3.0, -1.5]]), jnp.array([[-1.0, -1.0]])
    >>> print(rec_ring_loss(logprobs, old, jnp.array([[1.0]]), reduce=None))
    [[3. 0.]]

    References:
      Yao et al., *Group-Relative REINFORCE Is Secretly an Off-Policy Algorithm*, arXiv:2509.24203.
    """
    surrogate = surrogates.rec_ring(clip_low, clip_high, outer_low, outer_high, weight)
    parts = {"ratio": unbounded, "surrogate": surrogate}
    return policy_loss(logprobs, old_logprobs, advantages, **parts, where=where, reduce=reduce)


def red_weight_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    *,
    weight: importance.Weight = surrogates.exponential,
    forward_kl: float = 0.0,
    k2: float = 0.0,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""RED-Weight: REINFORCE with the advantages weighted exponentially, and a pull towards the data.

    .. math:: \ell_t = -(w A_t + c_f) \log\pi(y_t) + c_2 (\log\pi(y_t) - \log\pi_{old}(y_t))^2,\quad w = e^{A_t/T}

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the policy that sampled; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weight: w; with ``uniform`` and ``k2`` it is Kimi's loss.
      forward_kl: c_f, likelihood of the sampled tokens.
      k2: c_2, squared log-ratio (Kimi's regulariser, without 1/2).
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(red_weight_loss(jnp.array([[-1.0]]), jnp.array([[-1.0]]), jnp.array([[1.0]])))
    2.7182817

    References:
      Yao et al., *Group-Relative REINFORCE Is Secretly an Off-Policy Algorithm*, arXiv:2509.24203.
    """
    surrogate = surrogates.red(weight, forward_kl)
    penalty = {"beta": 2 * k2, "estimator": regularize.k2, "where": where, "reduce": reduce}
    arrays = (logprobs, old_logprobs, advantages, None, old_logprobs)
    return policy_loss(*arrays, ratio=unbounded, surrogate=surrogate, **penalty)
