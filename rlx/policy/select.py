"""Selections of tokens by the covariance of log-probability and advantage, exact and global over shards.

Tokens stand on the last axis ``[..., T]``; leading axes are the batch, and all of it is one population. Selections are
boolean constants. With ``axis_name`` (pmap, shard_map) the population is that of all shards, in the order of the mapped
axis: every shard agrees on the outcome, and marks its own tokens. A key must be the same on every shard.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rlx import errors, numerics, ops
from rlx.policy import ratios, surrogates
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes


def covariance(
    logprobs: Array, advantages: Array, *, where: Array | None = None, axis_name: numerics.AxisName = None
) -> Array:
    r"""Every token's part of the covariance: :math:`(\log\pi_t - \overline{\log\pi})\,(A_t - \bar A)`, 0 where masked.

    Args:
      logprobs: ``[..., T]`` nats.
      advantages: ``[..., T]`` or ``[..., 1]``.
      where: ``[..., T]`` real tokens: the means are over all of them.
      axis_name: mapped axes the means are global over.

    >>> print(covariance(jnp.array([-1.0, -3.0]), jnp.array([1.0, 0.0])))
    [0.5 0.5]

    References:
      Cui et al., *The Entropy Mechanism of RL for Reasoning Language Models*, arXiv:2505.22617.
    """
    check_shapes(logprobs=logprobs, advantages=advantages, where=where)
    both = (constant(x, where) for x in (logprobs, advantages))
    return ops.token_covariance(*both, where=where, axis_name=axis_name)


def check_fraction(**named: float) -> None:
    """Raises a UserError for a fraction of the tokens that is not in (0, 1]."""
    for name, value in named.items():
        if not 0 < value <= 1:
            raise errors.UserError(f"{name} is a fraction of the tokens and must be in (0, 1], got {value}.")


def requested(ratio: float, like: Array, *, where: Array | None = None, axis_name: numerics.AxisName = None) -> Array:
    """``max(int(ratio * n), 1)`` for the n selected entries of ``like``, rounded as Python floats are.

    Raises:
      UserError: ``ratio`` is outside (0, 1].

    >>> print(requested(0.29, jnp.zeros(100)), requested(2e-4, jnp.zeros(100)))
    28 1
    """
    check_fraction(ratio=ratio)
    # n is only known when the program runs, where float32 would round 0.29 * 100 up: the n at which the count
    # goes up by one are found beforehand in float64
    size = like.size * (1 if axis_name is None else jax.lax.axis_size(axis_name))
    steps = np.flatnonzero(np.diff(np.floor(ratio * np.arange(size + 1)))) + 1
    n = numerics.count(where, like, axis_name=axis_name).astype(jnp.int32)
    return jnp.maximum(jnp.searchsorted(jnp.asarray(steps, jnp.int32), n, side="right"), 1)


def uniform(key: Array, where: Array, *, axis_name: numerics.AxisName = None) -> Array:
    """A uniform number in [0, 1) for every selected entry, drawn by its place among the selected ones of all shards.

    So neither padding nor the number of shards changes a draw (for jax's default, partitionable, key type).
    """
    everything = numerics.gather(where.ravel(), axis_name)
    draws = jax.random.uniform(key, everything.shape, jnp.float32)
    return numerics.shard_slice(draws[jnp.cumsum(everything) - 1], where.size, axis_name).reshape(where.shape)


def clip_cov_candidates(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    *,
    clip_low: float = 1.0,
    clip_high: float = 1.0,
    lower: float = 1.0,
    upper: float = 5.0,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    """Real tokens with ``lower < covariance < upper`` that PPO's clip does not drop already: ``[..., T]`` bool.

    Arguments are those of :func:`rlx.policy.entropy.clip_cov`.
    """
    cov = covariance(logprobs, advantages, where=where, axis_name=axis_name)
    ratio = ratios.token(constant(logprobs), old_logprobs, bound=ratios.OVERFLOW, where=where)
    dropped = surrogates.is_clipped(ratio, constant(advantages, where), low=clip_low, high=clip_high)
    candidates = (cov > lower) & (cov < upper) & ~dropped
    return candidates if where is None else candidates & where


def clip_cov_keep(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    *,
    clip_low: float = 1.0,
    clip_high: float = 1.0,
    ratio: float = 2e-4,
    lower: float = 1.0,
    upper: float = 5.0,
    key: Array | None = None,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    """Clip-Cov's selection: False at ``min(max(int(ratio n), 1), #candidates)`` candidates, drawn without replacement.

    Arguments are those of :func:`rlx.policy.entropy.clip_cov`; the result is ``[..., T]`` bool, True where masked.

    Raises:
      UserError: there is no key, ``ratio`` is outside (0, 1], or the shapes disagree.

    >>> args = jnp.array([-1.0, -9.0, -9.0]), jnp.array([-1.0, -9.0, -9.0]), jnp.array([1.0, 0.0, 0.0])
    >>> print(clip_cov_keep(*args, key=jax.random.key(0)))
    [False  True  True]
    """
    if key is None:
        raise errors.UserError(
            "clip_cov draws tokens at random: pass key=jax.random.key(seed), or the mask as keep=clip_cov_keep(...)."
        )
    bounds = {"clip_low": clip_low, "clip_high": clip_high, "lower": lower, "upper": upper}
    options = {"where": where, "axis_name": axis_name}
    candidates = clip_cov_candidates(logprobs, old_logprobs, advantages, **bounds, **options)
    k = requested(ratio, candidates, **options)
    draws = uniform(key, candidates, axis_name=axis_name)
    return ~numerics.top_k_mask(draws, k, where=candidates, axis_name=axis_name)


def kl_cov_select(
    logprobs: Array,
    advantages: Array,
    *,
    ratio: float = 2e-4,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    """KL-Cov's selection: the ``max(int(ratio n), 1)`` tokens of largest covariance, ties by position.

    Arguments are those of :func:`rlx.policy.entropy.kl_cov`; the result is ``[..., T]`` bool, False where masked.

    Raises:
      UserError: ``ratio`` is outside (0, 1], or the shapes disagree.

    >>> print(kl_cov_select(jnp.array([-1.0, -5.0, -3.0]), jnp.array([1.0, 0.0, 0.0])))
    [ True False False]
    """
    cov = covariance(logprobs, advantages, where=where, axis_name=axis_name)
    k = requested(ratio, cov, where=where, axis_name=axis_name)
    return numerics.top_k_mask(cov, k, where=where, axis_name=axis_name)
