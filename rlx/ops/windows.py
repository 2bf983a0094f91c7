"""Entropy averaged over windows of tokens, and the tokens where what follows is uncertain (ARES).

Tokens stand on the last axis ``[..., T]``. A window lies within a row; masked tokens are in none.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics


class WindowEntropy(NamedTuple):
    """Mean of a window ``[..., T]`` (0 where it is not complete), and whether all of its tokens are real."""

    mean: jax.Array
    complete: jax.Array


def _windows(entropy: jax.Array, offsets: jax.Array, where: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The entropies at ``t + offsets`` and which of them, and of the tokens t, are real: ``[..., T, W]`` both."""
    length = entropy.shape[-1]
    index = jnp.arange(length)[:, None] + offsets
    inside = (index >= 0) & (index < length)
    index = jnp.clip(index, 0, length - 1)
    real = jnp.broadcast_to(True if where is None else where, entropy.shape)
    return numerics.accumulate(entropy)[..., index], real[..., index] & inside & real[..., None]


def _check_window(window: int) -> None:
    if window < 1:
        raise errors.UserError(f"window is a number of tokens and must be at least 1, got {window}.")


def window_entropy(entropy: jax.Array, *, window: int = 4, where: jax.Array | None = None) -> WindowEntropy:
    r"""Mean entropy of the tokens that follow: :math:`W_t = \frac1w \sum_{i=1}^{w} H_{t+i}`.

    Differentiable; ``complete`` where all w tokens, and token t, are real.

    Args:
        entropy: ``[..., T]`` nats.
        window: w.
        where: bool ``[..., T]`` response tokens.

    Raises:
        UserError: ``window`` is below 1.

    >>> print(window_entropy(jnp.array([1.0, 2.0, 4.0]), window=2).mean)
    [3. 0. 0.]

    References:
        *ARES: Multimodal Adaptive Reasoning via Difficulty-Aware Token-Level Entropy Shaping*, arXiv:2510.08457.
    """
    _check_window(window)
    values, real = _windows(entropy, 1 + jnp.arange(window), where)
    complete = real.all(-1)
    return WindowEntropy(numerics.clean(numerics.mean(values, -1, where=real), complete), complete)


def trailing_entropy(entropy: jax.Array, *, window: int = 4, where: jax.Array | None = None) -> jax.Array:
    r"""Mean entropy of a token and the w - 1 before it, fewer at the start of a response: ``[..., T]``.

    Arguments are those of :func:`window_entropy`.

    >>> print(trailing_entropy(jnp.array([1.0, 2.0, 4.0]), window=2))
    [1.  1.5 3. ]
    """
    _check_window(window)
    values, real = _windows(entropy, -jnp.arange(window), where)
    return numerics.mean(values, -1, where=real)


def window_threshold(
    entropy: jax.Array, *, window: int = 8, percentile: float = 98.0, where: jax.Array | None = None
) -> jax.Array:
    """A percentile of the windows of every response, ``[...]``: above it a window counts as one of high entropy.

    A token without a complete window counts with the mean of the complete ones, or, where there is none, with the
    entropy of the first token. The threshold of a batch is the median over its responses (``numerics.quantile``),
    smoothed over steps (``signals.ema(0.99)``). 0 for a response without tokens.

    Args:
        entropy: ``[..., T]`` nats.
        window: w.
        percentile: in [0, 100], linear between neighbours.
        where: bool ``[..., T]`` response tokens.

    Raises:
        UserError: ``window`` is below 1.

    >>> print(window_threshold(jnp.array([1.0, 2.0, 4.0]), window=1, percentile=50.0))
    3.0
    """
    mean, complete = window_entropy(entropy, window=window, where=where)
    real = jnp.broadcast_to(True if where is None else where, entropy.shape)
    first = numerics.sum(entropy, -1, where=real & (jnp.cumsum(real, -1) == 1), keepdims=True)
    fill = jnp.where(complete.any(-1, keepdims=True), numerics.mean(mean, -1, where=complete, keepdims=True), first)
    values, rows = jnp.where(complete, mean, fill), real.reshape(-1, real.shape[-1])
    quantile = jax.vmap(lambda x, w: numerics.quantile(x, percentile / 100, where=w))
    return quantile(values.reshape(rows.shape), rows).reshape(entropy.shape[:-1])


class WindowCounts(NamedTuple):
    """Of a response ``[...]``: triggers whose window is high, those whose window is low, and the excess of the high."""

    high: jax.Array
    low: jax.Array
    excess: jax.Array


def window_counts(
    entropy: jax.Array,
    triggers: jax.Array,
    threshold: jax.Array,
    *,
    window: int = 4,
    where: jax.Array | None = None,
) -> WindowCounts:
    r"""How often a trigger is followed by high entropy: :math:`\#\{t: W_t \ge \tau\}` over triggers t.

    Args:
        entropy: ``[..., T]`` nats.
        triggers: bool ``[..., T]`` tokens that may start a digression (a reasoning word).
        threshold: tau, broadcastable to ``[..., T]`` (:func:`window_threshold`).
        window: w.
        where: bool ``[..., T]`` response tokens.

    Returns:
        Counts of triggers with a complete window, and :math:`\sum_t \max(W_t - \tau, 0)`, differentiable.

    Raises:
        UserError: ``window`` is below 1.

    >>> print(window_counts(jnp.array([1.0, 2.0, 4.0]), jnp.array([True, True, True]), jnp.array(3.0), window=1))
    WindowCounts(high=Array(1., dtype=float32), low=Array(1., dtype=float32), excess=Array(1., dtype=float32))
    """
    mean, complete = window_entropy(entropy, window=window, where=where)
    counted, high = complete & triggers, mean >= threshold
    excess = numerics.sum(jnp.maximum(mean - threshold, 0), -1, where=counted)
    above, below = (numerics.count(counted & part, mean, -1) for part in (high, ~high))
    return WindowCounts(above, below, excess)
