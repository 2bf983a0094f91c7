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
        weights = largest(weights, top_k, count=True)
    if top_p is not None:
        weights = largest(weights, top_p * weights.sum(-1, keepdims=True))
    if min_p is not None:
        weights = jnp.where(weights >= min_p * weights.max(-1, keepdims=True), weights, 0)
    return weights


def largest(weights: jax.Array, budget: jax.Array | float, *, count: bool = False) -> jax.Array:
    """The largest weights before ``budget`` is used up, the one that crosses it included, others 0.

    Args:
        weights: not negative, ``[N, V]``.
        budget: ``[N, 1]`` or a number; of the sum of the weights, or of their number.
        count: each token takes 1 of the budget, not its weight.

    >>> print(largest(jnp.array([[1.0, 3.0, 2.0]]), 2, count=True))
    [[0. 3. 2.]]
    """

    def above(edge):
        return jnp.where(weights > edge, 1 if count else weights, 0).sum(-1, keepdims=True).astype(weights.dtype)

    edge = _smallest_float(lambda edge: above(edge) < budget, weights.max(-1, keepdims=True))
    equal = weights == edge
    each = jnp.ones_like(edge) if count else jnp.where(edge > 0, edge, 1)
    needed = jnp.ceil((budget - above(edge)) / each)
    columns = jnp.arange(weights.shape[-1], dtype=jnp.int32)
    whole = jnp.full(edge.shape, len(columns), jnp.int32)

    def before(end):
        return (equal & (columns < end)).sum(-1, keepdims=True)

    def cut():  # rare: the columns are searched only if some row has more equal weights than it needs
        return _smallest(lambda end: before(end) >= needed, whole, len(columns).bit_length())

    end = jax.lax.cond((before(whole) > needed).any(), cut, lambda: whole)
    return jnp.where((weights > edge) | (equal & (columns < end)), weights, 0)


def _smallest_float(holds: Callable[[jax.Array], jax.Array], high: jax.Array) -> jax.Array:
    """The smallest float from 0 to ``high``, as :func:`_smallest`: those that are not negative are ordered as their
    bits are."""
    width, cast = high.dtype.itemsize * 8, jax.lax.bitcast_convert_type
    bits = _smallest(lambda bits: holds(cast(bits, high.dtype)), cast(high, f"int{width}"), width - 1)
    return cast(bits, high.dtype)


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
