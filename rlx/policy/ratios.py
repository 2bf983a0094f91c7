"""Importance ratios of the policy to the proximal policy, per token or per sequence.

Tokens stand on the last axis ``[..., T]``; leading axes are the batch. The old policy is a constant; a masked token has
log-ratio 0, ratio 1 and no gradient. Outside a clamp the gradient is 0.
"""

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.policy import weights
from rlx.types import Array

CLAMP = 20.0
"""Bound on |log-ratio| of PPO-like losses (verl's ``vanilla``): a token beyond it is stale, and no longer trained."""

OVERFLOW = 60.0
"""Bound on |log-ratio| of losses whose source has none: the exponential, and sums of it, stay finite in float32."""


def clamp(x: Array, low: float, high: float) -> Array:
    """``x`` inside [low, high] with gradient 1, bounds included; the nearer bound with gradient 0 outside.

    ``jnp.clip`` differs on the bounds, where it has half the gradient; torch agrees with this one.

    >>> print(jax.vmap(jax.grad(lambda x: clamp(x, -1.0, 1.0)))(jnp.array([-2.0, 0.5, 1.0])))
    [0. 1. 1.]
    """
    return jnp.where((x >= low) & (x <= high), x, jax.lax.stop_gradient(jnp.clip(x, low, high)))


def log_ratio(logprobs: Array, old_logprobs: Array, *, where: Array | None = None) -> Array:
    r""":math:`d_t = \log\pi(y_t) - \log\pi_{old}(y_t)` in nats, 0 where masked; the old policy is a constant."""
    return numerics.clean(numerics.accumulate(logprobs) - weights.constant(old_logprobs), where)


def token(logprobs: Array, old_logprobs: Array, *, bound: float = CLAMP, where: Array | None = None) -> Array:
    r""":math:`r_t = \exp(\mathrm{clamp}(d_t, \pm b))`.

    >>> print(token(jnp.array([0.0, 1e4]), jnp.array([0.0, 0.0]), bound=1.0))
    [1.        2.7182817]
    """
    return jnp.exp(clamp(log_ratio(logprobs, old_logprobs, where=where), -bound, bound))


def sequence(
    logprobs: Array,
    old_logprobs: Array,
    *,
    straight_through: bool = True,
    maximum: float = 10.0,
    where: Array | None = None,
) -> Array:
    r""":math:`s = \exp(\min(\frac1n\sum_t d_t, m))` at every token of the sequence, ``[..., T]``.

    Args:
      logprobs: ``[..., T]``.
      old_logprobs: ``[..., T]``; a constant.
      straight_through: the gradient of token t is that of :math:`\mathrm{sg}[s]\,\pi(y_t)/\mathrm{sg}[\pi(y_t)]`
        (GSPO-token, verl); False differentiates s itself (TRL). The values are the same, and so is the gradient of a
        sequence mean when advantages and weights are constant within the sequence.
      maximum: bound m on the mean log-ratio.
      where: ``[..., T]`` real tokens.

    >>> print(sequence(jnp.array([1.0, 3.0, jnp.nan]), jnp.zeros(3), where=jnp.array([True, True, False])))
    [7.389056 7.389056 7.389056]
    """
    d = log_ratio(logprobs, old_logprobs, where=where)
    mean = jnp.broadcast_to(numerics.mean(d, -1, where=where, keepdims=True), d.shape)
    own = jax.lax.stop_gradient(mean) + (d - jax.lax.stop_gradient(d))
    return jnp.exp(clamp(own if straight_through else mean, -jnp.inf, maximum))
