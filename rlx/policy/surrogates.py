"""Surrogates: the loss of a token from its ratio, its advantage and its log-probability (:class:`rlx.types.Surrogate`).

All operate elementwise; ratios ``[..., T]``, advantages ``[..., T]`` or ``[..., 1]``, which are constants.
"""

import jax
import jax.numpy as jnp

from rlx import errors
from rlx.policy import importance, ratios
from rlx.types import Array, Surrogate

exponential = importance.exponential()


def unclipped(ratio: Array, advantages: Array, logprobs: Array | None = None) -> Array:
    """``-A r``: the policy gradient itself, importance-weighted."""
    return -advantages * ratio


def clip(
    low: float | Array = 0.2, high: float | Array = 0.2, *, dual: float | None = None, cap: float | None = None
) -> Surrogate:
    r"""PPO's pessimistic surrogate :math:`\max(-A\min(r, \text{cap}),\; -A\,\mathrm{clip}(r, 1-l, 1+h))`.

    Args:
      low: l, how far a ratio may fall below 1.
      high: h, how far it may rise above 1 (DAPO's clip-higher: 0.28 against 0.2).
      dual: c > 1; where A < 0 the loss is at most :math:`-A c`, so that an exploding ratio stops counting. None: none.
      cap: largest ratio of the unclipped branch (TRL's two-sided clipping, ``delta``); should exceed 1 + h.

    Raises:
      UserError: ``dual`` is not above 1.

    >>> print(clip(0.2, 0.2, dual=3.0)(jnp.array([2.0, 2.0, 9.0]), jnp.array([1.0, -1.0, -1.0])))
    [-1.2  2.   3. ]

    References:
      Schulman et al., *Proximal Policy Optimization Algorithms*, arXiv:1707.06347.
      Ye et al., *Mastering Complex Control in MOBA Games with Deep RL*, arXiv:1912.09729 (dual clip).
    """
    check_dual(dual)

    def surrogate(ratio: Array, advantages: Array, logprobs: Array | None = None) -> Array:
        capped = ratio if cap is None else ratios.clamp(ratio, -jnp.inf, cap)
        worst = jnp.maximum(-advantages * capped, -advantages * ratios.clamp(ratio, 1 - low, 1 + high))
        return worst if dual is None else jnp.where(advantages < 0, jnp.minimum(worst, -advantages * dual), worst)

    return surrogate


def soft(tau_positive: float = 1.0, tau_negative: float = 1.05) -> Surrogate:
    r"""SAPO's gate :math:`-\frac4\tau\,\sigma(\tau(r-1))\,A`, with tau of its own for A > 0: slope -A at ratio 1.

    >>> print(jax.grad(soft(2.0, 1.0))(1.0, 3.0))
    -3.0

    References:
      Gao et al., *Soft Adaptive Policy Optimization*, arXiv:2511.20347.
    """

    def surrogate(ratio: Array, advantages: Array, logprobs: Array | None = None) -> Array:
        tau = jnp.where(advantages > 0, tau_positive, tau_negative)
        return -4 / tau * jax.nn.sigmoid(tau * (ratio - 1)) * advantages

    return surrogate


def weighted(weight: importance.Weight = importance.uniform, *, likelihood: float = 0.0) -> Surrogate:
    r"""REINFORCE with a weight of its own: :math:`-(\mathrm{sg}[w(r, A)]\,A + c)\log\pi`.

    Args:
      weight: ``w(ratio, advantages)``, a constant (:mod:`rlx.policy.importance`).
      likelihood: c, what all tokens gain in likelihood, whatever their advantage.

    >>> print(weighted(importance.truncated(0.2, 0.2))(jnp.array([3.0]), jnp.array([1.0]), jnp.array([-2.0])))
    [2.4]
    """

    def surrogate(ratio: Array, advantages: Array, logprobs: Array) -> Array:
        return -(jax.lax.stop_gradient(weight(ratio, advantages)) * advantages + likelihood) * logprobs

    return surrogate


def reinforce() -> Surrogate:
    """REINFORCE: ``-A log pi``."""
    return weighted()


def cispo(low: float = 1.0, high: float = 4.0) -> Surrogate:
    """CISPO: REINFORCE weighted by the clipped ratio."""
    return weighted(importance.truncated(low, high))


def opmd(tau: float = 1.0) -> Surrogate:
    """OPMD: REINFORCE over ``1 + tau``."""
    return weighted(importance.scaled(1 / (1 + tau)))


def topr(threshold: float = 0.0) -> Surrogate:
    """TOPR: bad tokens weighted by the ratio, at most 1."""
    return weighted(importance.tapered(threshold))


def vespo(
    k_positive: float = 2.0, lambda_positive: float = 3.0, k_negative: float = 3.0, lambda_negative: float = 2.0
) -> Surrogate:
    """VESPO: gamma-shaped weights of the ratio of a response (:func:`rlx.policy.ratios.bounded_sum`)."""
    return weighted(importance.gamma_shaped(k_positive, lambda_positive, k_negative, lambda_negative))


def red(weight: importance.Weight = exponential, likelihood: float = 0.0) -> Surrogate:
    """RED-Weight: REINFORCE weighted by ``exp(A)``."""
    return weighted(weight, likelihood=likelihood)


def rec_one_side(low: float = 0.2, high: float = 0.2, weight: importance.Weight = importance.uniform) -> Surrogate:
    """REC-OneSide: REINFORCE on the tokens that PPO's clip trains on."""
    return weighted(importance.kept(importance.one_side(low, high), weight))


def rec_two_side(low: float = 0.2, high: float = 0.2, weight: importance.Weight = importance.uniform) -> Surrogate:
    """REC-TwoSide: REINFORCE on the tokens inside the clip range."""
    return weighted(importance.kept(importance.two_side(low, high), weight))


def rec_ring(
    low: float = 0.2,
    high: float = 0.2,
    outer_low: float = 0.6,
    outer_high: float = 2.0,
    weight: importance.Weight = importance.uniform,
) -> Surrogate:
    """REC-Ring: REC-TwoSide, and tokens far outside whose gradient pulls back."""
    return weighted(importance.kept(importance.ring(low, high, outer_low, outer_high), weight))


def is_clipped(ratio: Array, advantages: Array, *, low: float, high: float) -> Array:
    """Tokens whose clipped loss is strictly above the unclipped one: their gradient is 0."""
    return -advantages * ratios.clamp(ratio, 1 - low, 1 + high) > -advantages * ratio


def is_dual_clipped(ratio: Array, advantages: Array, *, low: float, high: float, dual: float) -> Array:
    """Tokens with A < 0 whose clipped loss is above ``-A c``."""
    check_dual(dual)
    return (advantages < 0) & (clip(low, high)(ratio, advantages, ratio) > -advantages * dual)


def check_dual(dual: float | None) -> None:
    """Raises a UserError: a dual clip at or below 1 would cut off ratios that PPO trains on."""
    if dual is not None and dual <= 1:
        raise errors.UserError(
            f"dual_clip bounds the ratio where A < 0 and must be above 1 (3.0 is usual), got {dual}."
        )
