"""Importance ratios of the policy to the proximal policy, per token or per sequence (:class:`rlx.types.Ratio`).

Tokens stand on the last axis ``[..., T]``; leading axes are the batch. The old policy is a constant; a masked token has
log-ratio 0 and no gradient. Outside a clamp the gradient is 0. ``advantages`` are constants that only
:func:`geometric` reads.
"""

import math

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.policy import weights
from rlx.types import Array

CLAMP = 20.0
"""Bound on |log-ratio| of PPO-like losses (verl's ``vanilla``): a token beyond it is stale, and no longer trained."""

OVERFLOW = 60.0
"""Bound on |log-ratio| of losses whose source has none: the exponential, and sums of it, stay finite in float32."""


def clamp(x: Array, low: float | Array, high: float | Array) -> Array:
    """``x`` inside [low, high] with gradient 1, bounds included; the nearer bound with gradient 0 outside.

    ``jnp.clip`` differs on the bounds, where it has half the gradient; torch agrees with this one.

    >>> print(jax.vmap(jax.grad(lambda x: clamp(x, -1.0, 1.0)))(jnp.array([-2.0, 0.5, 1.0])))
    [0. 1. 1.]
    """
    return jnp.where((x >= low) & (x <= high), x, jax.lax.stop_gradient(jnp.clip(x, low, high)))


def log_ratio(logprobs: Array, old_logprobs: Array, *, where: Array | None = None) -> Array:
    r""":math:`d_t = \log\pi(y_t) - \log\pi_{old}(y_t)` in nats, 0 where masked; the old policy is a constant."""
    return numerics.clean(numerics.accumulate(logprobs) - weights.constant(old_logprobs), where)


def none(
    logprobs: Array, old_logprobs: Array | None = None, advantages: Array | None = None, *, where: Array | None = None
) -> Array:
    """Ones: for surrogates of the log-probability alone, which have no proximal policy."""
    return jnp.ones_like(numerics.accumulate(logprobs))


def token(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array | None = None,
    *,
    bound: float = CLAMP,
    where: Array | None = None,
) -> Array:
    r""":math:`r_t = \exp(\mathrm{clamp}(d_t, \pm b))`.

    >>> print(token(jnp.array([0.0, 1e4]), jnp.array([0.0, 0.0]), bound=1.0))
    [1.        2.7182817]
    """
    return jnp.exp(clamp(log_ratio(logprobs, old_logprobs, where=where), -bound, bound))


def sequence(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array | None = None,
    *,
    maximum: float = 10.0,
    where: Array | None = None,
) -> Array:
    r""":math:`s = \exp(\min(\frac1n\sum_t d_t, m))` at every token of the sequence, ``[..., T]``, differentiated.

    >>> print(sequence(jnp.array([1.0, 3.0, jnp.nan]), jnp.zeros(3), where=jnp.array([True, True, False])))
    [7.389056 7.389056 7.389056]
    """
    d = log_ratio(logprobs, old_logprobs, where=where)
    mean = numerics.mean(d, -1, where=where, keepdims=True)
    return jnp.exp(clamp(jnp.broadcast_to(mean, d.shape), -jnp.inf, maximum))


def sequence_straight_through(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array | None = None,
    *,
    maximum: float = 10.0,
    where: Array | None = None,
) -> Array:
    r"""GSPO-token: :func:`sequence`, with the gradient of :math:`\mathrm{sg}[s]\,\pi(y_t)/\mathrm{sg}[\pi(y_t)]` at t.

    In a sequence mean, the gradient is that of :func:`sequence` when advantages and weights are constant
    within the sequence.

    >>> grad = jax.grad(lambda x: sequence_straight_through(x, jnp.zeros(2))[0])(jnp.zeros(2))
    >>> print(grad)
    [1. 0.]
    """
    d = log_ratio(logprobs, old_logprobs, where=where)
    mean = jax.lax.stop_gradient(numerics.mean(d, -1, where=where, keepdims=True))
    return jnp.exp(clamp(mean + (d - jax.lax.stop_gradient(d)), -jnp.inf, maximum))


def sequence_sum(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array | None = None,
    *,
    bound: float = CLAMP,
    minimum: float = -OVERFLOW,
    maximum: float = OVERFLOW,
    where: Array | None = None,
) -> Array:
    r"""The ratio of the whole response, :math:`\exp(\mathrm{clamp}(\sum_t \mathrm{clamp}(d_t, \pm b), m, M))`.

    At every token, ``[..., T]``.

    >>> print(sequence_sum(jnp.array([1.0, -1.0]), jnp.array([1.0, -2.0])))
    [2.7182817 2.7182817]
    """
    d = clamp(log_ratio(logprobs, old_logprobs, where=where), -bound, bound)
    total = numerics.sum(d, -1, where=where, keepdims=True)
    return jnp.exp(clamp(jnp.broadcast_to(total, d.shape), minimum, maximum))


def bounded_sum(
    logprobs: Array, old_logprobs: Array, advantages: Array | None = None, *, where: Array | None = None
) -> Array:
    """:func:`sequence_sum` between 1e-8 and e^20: VESPO's."""
    return sequence_sum(logprobs, old_logprobs, minimum=math.log(1e-8), maximum=20.0, where=where)


def geometric(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    *,
    low: float = 0.4,
    high: float = 0.4,
    where: Array | None = None,
) -> Array:
    r"""GMPO's ratio: the exponential of the mean log-ratio, each clipped where that is pessimistic, ``[..., T]``.

    .. math:: \exp\Big(\frac1n\sum_t s_t \min(s_t d_t,\; s_t\,\mathrm{clip}(d_t, -l, h))\Big),\quad
       s_t = \mathrm{sign}\,A_t

    >>> print(geometric(jnp.array([0.0, 2.0]), jnp.zeros(2), jnp.ones(2), high=1.0))
    [1.6487212 1.6487212]
    """
    d = log_ratio(logprobs, old_logprobs, where=where)
    sign = jnp.sign(weights.constant(advantages, where))
    pessimistic = sign * jnp.minimum(sign * d, sign * clamp(d, -low, high))
    mean = numerics.mean(pessimistic, -1, where=where, keepdims=True)
    return jnp.exp(clamp(jnp.broadcast_to(mean, d.shape), -jnp.inf, OVERFLOW))
