"""STEER: weights of tokens by the change of entropy that training on them brings.

Tokens stand on the last axis ``[..., T]``; leading axes are the batch, one population for the extremes. With
``axis_name`` (pmap, shard_map) that population is the tokens of all shards.
"""

import math

import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.policy.clipped import ppo_clip_loss
from rlx.policy.weights import constant, largest, smallest
from rlx.types import Array, Reduce, check_positive, check_shapes

TINY = 1e-8
"""Probabilities are clamped to [TINY, 1 - TINY]."""


def entropy_change(
    logprobs: Array, old_logprobs: Array, advantages: Array, entropy: Array, *, where: Array | None = None
) -> Array:
    r"""First-order change of the entropy by a step on the token, in units of the step.

    .. math:: \Omega_t = \frac{A_t}{\pi_{old}(y_t)}\,p\,(1-p)\,(\log p + H_t),\quad p = \pi(y_t)

    >>> logprobs = jnp.log(jnp.array([0.5]))
    >>> print(entropy_change(logprobs, logprobs, jnp.array([2.0]), -logprobs + 1))
    [1.]
    """
    p, old = (jnp.exp(constant(x, where)) for x in (logprobs, old_logprobs))
    p = jnp.clip(p, TINY, 1 - TINY)
    relative = constant(advantages, where) / jnp.clip(old, TINY, 1)
    return numerics.clean(relative * p * (1 - p) * (jnp.log(p) + constant(entropy, where)), where)


def steer_weights(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    entropy: Array,
    *,
    minimum: float = 0.8,
    maximum: float = 1.2,
    linear: bool = False,
    floor: float = 0.02,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""STEER's weights: the more a token would change the entropy, the less it counts.

    .. math:: w_t = \max(e^{-k|\Omega_t|}, w_{min}),\quad k = \frac{-\log w_{min}}{\max(\max_s|\Omega_s|, 0.02)}
       \qquad\text{or}\qquad
       w_t = w_{max} - (w_{max}-w_{min})\frac{|\Omega_t| - \min|\Omega|}{\max|\Omega| - \min|\Omega|}

    Args:
      logprobs: ``[..., T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., T]`` the same under the proximal policy.
      advantages: ``[..., T]`` or ``[..., 1]``.
      entropy: ``[..., T]`` entropy of the policy at the token (nats).
      minimum: w_min, in (0, 1].
      maximum: w_max of the linear weights; the exponential ones are at most 1.
      linear: False is the exponential of the official run; True falls linearly, to the middle if all changes are equal.
      floor: smallest largest change that is spread over all weights.
      where: ``[..., T]`` response tokens: the extremes are over all of them.
      axis_name: mapped axes these are global over.

    Returns:
      ``[..., T]`` constants, 0 where masked.

    Raises:
      UserError: ``minimum`` is not above 0, or the shapes disagree.

    >>> logprobs = jnp.log(jnp.array([0.5, 1.0]))
    >>> print(steer_weights(logprobs, logprobs, jnp.ones(2), jnp.ones(2)))
    [0.8 1. ]

    References:
      *Rethinking Entropy Interventions in RLVR: An Entropy Change Perspective* (STEER), arXiv:2510.10150.
    """
    check_shapes(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, entropy=entropy, where=where)
    check_positive(minimum=minimum)
    change = jnp.abs(entropy_change(logprobs, old_logprobs, advantages, entropy, where=where))
    high = largest(change, where, axis_name)
    if not linear:
        k = -math.log(minimum) / jnp.maximum(high, floor)
        return numerics.clean(jnp.clip(jnp.exp(-k * change), minimum, 1), where)
    low = smallest(change, where, axis_name)
    share = jnp.where(high > low, (change - low) / jnp.where(high > low, high - low, 1), 0.5)
    return numerics.clean(maximum - (maximum - minimum) * share, where)


def steer(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    entropy: Array,
    *,
    minimum: float = 0.8,
    maximum: float = 1.2,
    linear: bool = False,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 10.0,
    token_weights: Array | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""STEER: PPO with tokens weighted by how little they change the entropy (:func:`steer_weights`).

    .. math:: \ell_t = w_t \max(-A_t r_t,\; -A_t\,\mathrm{clip}(r_t, 1-l, 1+h)),\quad
       \text{at most } -w_t A_t c \text{ where } A_t < 0

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      entropy: ``[..., K, T]`` entropy of the policy at the token (nats); a constant.
      minimum: w_min.
      maximum: w_max of the linear weights.
      linear: linear instead of exponential weights.
      clip_low: l.
      clip_high: h.
      dual_clip: c > 1, or None.
      token_weights: ``[..., K, T]`` w; None computes them from these tokens.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.
      axis_name: mapped axes the extremes are global over.

    Raises:
      UserError: ``minimum`` is not above 0, ``dual_clip`` not above 1, or the shapes disagree.

    >>> logprobs = jnp.log(jnp.array([[0.5, 1.0]]))
    >>> print(steer(logprobs, logprobs, jnp.array([[1.0]]), jnp.ones((1, 2)), reduce=None))
    [[-0.8 -1. ]]

    References:
      *Rethinking Entropy Interventions in RLVR: An Entropy Change Perspective* (STEER), arXiv:2510.10150.
    """
    arrays = (logprobs, old_logprobs, advantages)
    if token_weights is None:
        options = {"minimum": minimum, "maximum": maximum, "linear": linear, "where": where, "axis_name": axis_name}
        token_weights = steer_weights(*arrays, entropy, **options)
    bounds = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
    return ppo_clip_loss(*arrays, token_weights, **bounds, where=where, reduce=reduce)
