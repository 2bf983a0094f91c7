"""The distribution that tokens are drawn from: a temperature, and the unlikely tokens cut off without a sort."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

COLDEST = 1e-4
"""No temperature that a function gives is below this."""


class Statistics(NamedTuple):
    """Of logits ``[N, V]``, from one pass of exponentials."""

    top: jax.Array
    """Largest logit, ``[N, 1]``."""
    weights: jax.Array
    """``exp(logits - top)``, ``[N, V]``."""
    total: jax.Array
    """Sum of the weights, ``[N]``."""
    entropy: jax.Array
    """Nats, ``[N]``."""


def statistics(logits: jax.Array) -> Statistics:
    """Entropy and normaliser of ``softmax(logits [N, V])``; a token with logit -inf is impossible.

    >>> found = statistics(jnp.log(jnp.array([[0.5, 0.5, 0.0]])))
    >>> print(f"{found.entropy[0]:.4f} {found.total[0]:.1f}")
    0.6931 2.0
    """
    top = logits.max(-1, keepdims=True)
    u = logits - top
    weights = jnp.exp(u)
    total = weights.sum(-1)
    moment = jnp.where(weights > 0, weights * u, 0).sum(-1)
    return Statistics(top, weights, total, jnp.log(total) - moment / total)


def truncate(
    weights: jax.Array,
    *,
    top_k: jax.Array | int | None = None,
    top_p: jax.Array | float | None = None,
    min_p: jax.Array | float | None = None,
) -> jax.Array:
    """Sets the weights ``[N, V]`` of the tokens that are cut off to 0.

    The smallest weight that is kept is found by bisection on the bits of the floats, equal weights by their index.

    Args:
        weights: not negative, in proportion to the probabilities.
        top_k: keep this many of the largest.
        top_p: keep the fewest of the largest that hold this share of what ``top_k`` leaves.
        min_p: keep those of at least this share of the largest.

    >>> print(truncate(jnp.array([[4.0, 2.0, 1.0, 1.0]]), top_p=0.8))
    [[4. 2. 1. 0.]]
    >>> print(truncate(jnp.array([[4.0, 2.0, 1.0, 1.0]]), top_k=3, min_p=0.5))
    [[4. 2. 0. 0.]]
    """
    if top_k is not None:
        weights = largest(weights, None, top_k)
    if top_p is not None:
        weights = largest(weights, weights, top_p * weights.sum(-1, keepdims=True))
    if min_p is not None:
        weights = jnp.where(weights >= min_p * weights.max(-1, keepdims=True), weights, 0)
    return weights


def largest(weights: jax.Array, measure: jax.Array | None, budget: jax.Array | float) -> jax.Array:
    """The largest weights before ``budget`` of ``measure`` is used up, the one that crosses it included, others 0.

    Args:
        weights: not negative, ``[N, V]``.
        measure: ``[N, V]``, equal for equal weights; None: each token counts 1.
        budget: ``[N, 1]`` or a number.

    >>> print(largest(jnp.array([[1.0, 3.0, 2.0]]), None, 2))
    [[0. 3. 2.]]
    """
    measure = jnp.ones_like(weights) if measure is None else measure
    # Floats that are not negative are ordered as their bits are.
    width = weights.dtype.itemsize * 8
    bits = jax.lax.bitcast_convert_type(weights, f"int{width}")

    def above(edge):
        return jnp.where(bits > edge, measure, 0).sum(-1, keepdims=True)

    edge = _smallest(lambda edge: above(edge) < budget, bits.max(-1, keepdims=True), width - 1)
    equal = bits == edge
    each = jnp.where(equal, measure, 0).max(-1, keepdims=True)
    count = jnp.ceil((budget - above(edge)) / jnp.where(each > 0, each, 1))
    columns = jnp.arange(weights.shape[-1], dtype=jnp.int32)
    whole = jnp.full(edge.shape, len(columns), jnp.int32)

    def before(end):
        return (equal & (columns < end)).sum(-1, keepdims=True)

    def cut():  # rare: the columns are searched only if some row has more equal weights than it needs
        return _smallest(lambda end: before(end) >= count, whole, len(columns).bit_length())

    end = jax.lax.cond((before(whole) > count).any(), cut, lambda: whole)
    return jnp.where((bits > edge) | (equal & (columns < end)), weights, 0)


def _smallest(holds: Callable[[jax.Array], jax.Array], high: jax.Array, width: int) -> jax.Array:
    """The smallest integer from 0 to ``high < 2**width`` for which the monotone ``holds`` is true, or ``high``.

    The number of halvings is fixed: to ask all rows whether they are done is dear where they are spread over devices.
    """

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        found = holds(middle)
        return jnp.where(found, low, jnp.minimum(middle + 1, high)), jnp.where(found, middle, high)

    return jax.lax.fori_loop(0, width, halve, (jnp.zeros_like(high), high))[1]
