"""Weights of a policy gradient as functions ``w(ratio, advantages)``, and which tokens it keeps, likewise.

All operate elementwise; ratios ``[..., T]``, advantages ``[..., T]`` or ``[..., 1]``. They become constants where they
are used (:func:`rlx.policy.surrogates.weighted`).
"""

from collections.abc import Callable

import jax.numpy as jnp

from rlx.policy import ratios
from rlx.types import Array

Weight = Callable[[Array, Array], Array]
Keep = Callable[[Array, Array], Array]


def uniform(ratio: Array, advantages: Array) -> Array:
    """1: REINFORCE."""
    return jnp.ones_like(ratio)


def importance(ratio: Array, advantages: Array) -> Array:
    """r: the importance-weighted policy gradient."""
    return ratio


def scaled(factor: float) -> Weight:
    """A constant."""
    return lambda ratio, advantages: factor * jnp.ones_like(ratio)


def exponential(temperature: float = 1.0) -> Weight:
    """``exp(A / temperature)``, the exponent at most 60."""
    return lambda ratio, advantages: jnp.exp(jnp.minimum(advantages / temperature, ratios.OVERFLOW))


def truncated(low: float = 1.0, high: float = 4.0) -> Weight:
    """``clip(r, 1 - low, 1 + high)``: CISPO.

    >>> print(truncated(1.0, 4.0)(jnp.array([0.1, 9.0]), jnp.ones(2)))
    [0.1 5. ]
    """
    return lambda ratio, advantages: jnp.clip(ratio, 1 - low, 1 + high)


def tapered(threshold: float = 0.0) -> Weight:
    """``clip(r, 0, 1)`` where A is at most the threshold, else 1: TOPR.

    >>> print(tapered()(jnp.array([3.0, 0.5, 0.5]), jnp.array([-1.0, -1.0, 1.0])))
    [1.  0.5 1. ]
    """
    return lambda ratio, advantages: jnp.where(advantages <= threshold, jnp.clip(ratio, 0, 1), 1)


def gamma_shaped(
    k_positive: float = 2.0, lambda_positive: float = 3.0, k_negative: float = 3.0, lambda_negative: float = 2.0
) -> Weight:
    r""":math:`r^k \exp(\lambda (1 - r))` with k, lambda by the sign of A: VESPO; 0 where that is not finite.

    >>> print(gamma_shaped()(jnp.array([1.0, 1e9]), jnp.ones(2)))
    [1. 0.]
    """

    def weight(ratio: Array, advantages: Array) -> Array:
        better = advantages >= 0
        k, rate = jnp.where(better, k_positive, k_negative), jnp.where(better, lambda_positive, lambda_negative)
        shaped = jnp.exp(rate + k * jnp.log(ratio) - rate * ratio)
        return jnp.where(jnp.isfinite(shaped), shaped, 0)

    return weight


def one_side(low: float = 0.2, high: float = 0.2) -> Keep:
    """Tokens that PPO's clip trains on: ``A >= 0, r <= 1 + high`` or ``A <= 0, r >= 1 - low``."""
    return lambda ratio, advantages: (advantages >= 0) & (ratio <= 1 + high) | (advantages <= 0) & (ratio >= 1 - low)


def two_side(low: float = 0.2, high: float = 0.2) -> Keep:
    """Tokens with ``1 - low <= r <= 1 + high``."""
    return lambda ratio, advantages: jnp.broadcast_to(
        (ratio >= 1 - low) & (ratio <= 1 + high), jnp.broadcast_shapes(ratio.shape, jnp.shape(advantages))
    )


def ring(low: float = 0.2, high: float = 0.2, outer_low: float = 0.6, outer_high: float = 2.0) -> Keep:
    """:func:`two_side`, and tokens far away on the side that pulls back.

    >>> print(ring()(jnp.array([0.1, 0.6, 1.0, 2.0, 4.0]), jnp.ones(5)))
    [ True False  True False False]
    """

    def keep(ratio: Array, advantages: Array) -> Array:
        below, above = (advantages >= 0) & (ratio <= 1 - outer_low), (advantages <= 0) & (ratio >= 1 + outer_high)
        return two_side(low, high)(ratio, advantages) | below | above

    return keep


def kept(keep: Keep, weight: Weight = uniform) -> Weight:
    """The weight where a token is kept, else 0."""
    return lambda ratio, advantages: jnp.where(keep(ratio, advantages), weight(ratio, advantages), 0)
