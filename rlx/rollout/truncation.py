"""The distribution that tokens are drawn from: a temperature, and the unlikely tokens cut off without a sort."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx.models.sampling import in_lanes

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
    sums = total(weights)
    moment = total(jnp.where(weights > 0, weights * u, 0))
    return Statistics(top, weights, sums, jnp.log(sums) - moment / sums)


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
        weights = largest(weights, weights, top_p * total(weights)[:, None])
    if min_p is not None:
        weights = jnp.where(weights >= min_p * weights.max(-1, keepdims=True), weights, 0)
    return weights


def total(weights: jax.Array) -> jax.Array:
    """Sums of rows ``[N, V] -> [N]``, in the order of the sampler."""
    return in_lanes(weights).sum(1).sum(-1)


def largest(weights: jax.Array, measure: jax.Array | None, budget: jax.Array | float) -> jax.Array:
    """The largest weights before ``budget`` of ``measure`` is used up, the one that crosses it included, others 0.

    Args:
        weights: not negative, ``[N, V]``.
        measure: ``[N, V]``, equal for equal weights; None: each token counts 1.
        budget: ``[N, 1]`` or a number.

    >>> print(largest(jnp.array([[1.0, 3.0, 2.0]]), None, 2))
    [[0. 3. 2.]]
    """
    vocab = weights.shape[-1]
    weights = in_lanes(weights)
    measure = jnp.ones_like(weights) if measure is None else in_lanes(measure)
    # Floats that are not negative are ordered as their bits are.
    bits = jax.lax.bitcast_convert_type(weights, f"int{weights.dtype.itemsize * 8}")
    top = bits.max((1, 2), keepdims=True)
    budget = jnp.broadcast_to(budget, (len(weights), 1))[..., None]

    def above(edge):
        return jnp.where(bits > edge, measure, 0).sum(1, keepdims=True).sum(2, keepdims=True)

    edge = _smallest(lambda edge: above(edge) < budget, jnp.zeros_like(top), top)
    equal = bits == edge
    each = jnp.where(equal, measure, 0).max((1, 2), keepdims=True)
    count = jnp.ceil((budget - above(edge)) / jnp.where(each > 0, each, 1))
    columns = jnp.arange(weights[0].size, dtype=jnp.int32).reshape(weights[0].shape)
    whole = jnp.full(top.shape, weights[0].size, jnp.int32)

    def before(end):
        return (equal & (columns < end)).sum(1, keepdims=True).sum(2, keepdims=True)

    def cut():  # rare: the columns are searched only if some row has more equal weights than it needs
        return _smallest(lambda end: before(end) >= count, jnp.zeros_like(whole), whole)

    end = jax.lax.cond((before(whole) > count).any(), cut, lambda: whole)
    kept = jnp.where((bits > edge) | (equal & (columns < end)), weights, 0)
    return kept.reshape(len(kept), -1)[:, :vocab]


def _smallest(holds, low: jax.Array, high: jax.Array) -> jax.Array:
    """The smallest integer in ``[low, high]`` for which the monotone ``holds`` is true, ``high`` if none is."""

    def halve(bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        found = holds(middle) & (low < high)
        return jnp.where(found | (low >= high), low, middle + 1), jnp.where(found, middle, high)

    return jax.lax.while_loop(lambda bounds: (bounds[0] < bounds[1]).any(), halve, (low, high))[0]
