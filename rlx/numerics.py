"""Masked sums, means, quantiles, softmaxes, exact top-k and cross-shard sums: the only mask and NaN code of rlx.

``where`` is boolean and broadcasts against the array; ``None`` means all. Nothing masked ever reaches a value or a
gradient, however large, infinite or NaN it is; a NaN that is *not* masked stays visible. The mean of nothing is 0.
``axis_name`` names mapped axes (pmap, shard_map) over which the statistic is global; ``None``: this array alone.
Half-precision inputs are accumulated in float32.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from rlx.types import Array

Axis = int | Sequence[int] | None
AxisName = str | tuple[str, ...] | None

_HALF = (jnp.bfloat16, jnp.float16)


def accumulate(x: Array) -> Array:
    """``x`` in a type that sums can be taken in: float32 for half precision and integers, unchanged otherwise."""
    x = jnp.asarray(x)
    if x.dtype in _HALF:
        return x.astype(jnp.float32)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))


def clean(x: Array, where: Array | None, fill: float = 0.0) -> Array:
    """``x`` where ``where``, ``fill`` elsewhere; *before* a dangerous operation, so that gradients stay clean."""
    return x if where is None else jnp.where(where, x, jnp.asarray(fill, jnp.asarray(x).dtype))


def psum(x: Any, axis_name: AxisName = None) -> Any:
    """Sum of an array, or of every array of a pytree, over mapped axes; the identity when there are none."""
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def count(
    where: Array | None, like: Array, axis: Axis = None, *, keepdims: bool = False, axis_name: AxisName = None
) -> Array:
    """How many entries of ``like`` are selected along ``axis``, in the accumulation type of ``like``."""
    like = accumulate(like)
    selected = (
        jnp.ones(like.shape, like.dtype) if where is None else jnp.broadcast_to(where, like.shape).astype(like.dtype)
    )
    return psum(selected.sum(axis, keepdims=keepdims), axis_name)


def sum(
    x: Array,
    axis: Axis = None,
    *,
    where: Array | None = None,
    keepdims: bool = False,
    axis_name: AxisName = None,
) -> Array:
    """Masked sum; the sum of nothing is 0.

    >>> print(sum(jnp.array([1., jnp.nan, 3.]), where=jnp.array([True, False, True])))
    4.0
    """
    return psum(clean(accumulate(x), where).sum(axis, keepdims=keepdims), axis_name)


def safe_divide(numerator: Array, denominator: Array) -> Array:
    """``numerator / denominator``, and 0 (with zero gradient) where the denominator is 0.

    >>> print(safe_divide(jnp.array([1., 1.]), jnp.array([2., 0.])))
    [0.5 0. ]
    """
    nonzero = denominator != 0
    return jnp.where(nonzero, numerator / jnp.where(nonzero, denominator, 1), 0)


def mean(
    x: Array,
    axis: Axis = None,
    *,
    where: Array | None = None,
    keepdims: bool = False,
    axis_name: AxisName = None,
) -> Array:
    """Masked mean; the mean of nothing is 0.

    >>> print(mean(jnp.array([1., 2., 9.]), where=jnp.array([True, True, False])))
    1.5
    """
    total = sum(x, axis, where=where, keepdims=keepdims, axis_name=axis_name)
    return safe_divide(total, count(where, x, axis, keepdims=keepdims, axis_name=axis_name))


def variance(
    x: Array,
    axis: Axis = None,
    *,
    where: Array | None = None,
    ddof: int = 0,
    keepdims: bool = False,
    axis_name: AxisName = None,
) -> Array:
    """Masked variance in two passes; 0 where fewer than ``ddof + 1`` entries are left."""
    centred = clean(accumulate(x), where)
    centred = centred - mean(x, axis, where=where, keepdims=True, axis_name=axis_name)
    squares = sum(jnp.square(clean(centred, where)), axis, where=where, keepdims=keepdims, axis_name=axis_name)
    n = count(where, x, axis, keepdims=keepdims, axis_name=axis_name)
    return safe_divide(squares, jnp.maximum(n - ddof, 0))


def std(
    x: Array,
    axis: Axis = None,
    *,
    where: Array | None = None,
    ddof: int = 0,
    keepdims: bool = False,
    axis_name: AxisName = None,
) -> Array:
    """Square root of :func:`variance`, with zero gradient where the variance is 0."""
    v = variance(x, axis, where=where, ddof=ddof, keepdims=keepdims, axis_name=axis_name)
    return jnp.where(v == 0, 0, jnp.sqrt(jnp.where(v == 0, 1, v)))


def whiten(x: Array, *, where: Array | None = None, epsilon: float = 1e-8, axis_name: AxisName = None) -> Array:
    """Centre and scale by the unbiased variance over all selected entries; masked entries become 0."""
    centred = x - mean(x, where=where, axis_name=axis_name)
    scale = jax.lax.rsqrt(variance(x, where=where, ddof=1, axis_name=axis_name) + epsilon)
    return clean(centred * scale, where)


def logsumexp(x: Array, axis: int = -1, *, where: Array | None = None, keepdims: bool = False) -> Array:
    """Masked log-sum-exp, -inf (with zero gradient) where nothing is selected or everything is -inf."""
    x = clean(accumulate(x), where, -jnp.inf)
    peak = jax.lax.stop_gradient(x.max(axis, keepdims=True, initial=-jnp.inf))
    peak = jnp.where(jnp.isneginf(peak), 0, peak)
    possible = ~jnp.isneginf(x)
    total = jnp.where(possible, jnp.exp(jnp.where(possible, x - peak, 0)), 0).sum(axis, keepdims=True)
    result = jnp.where(total == 0, -jnp.inf, jnp.log(jnp.where(total == 0, 1, total)) + peak)
    return result if keepdims else result.squeeze(axis)


def log_softmax(x: Array, axis: int = -1, *, where: Array | None = None) -> Array:
    """Masked log-softmax; masked entries are -inf, and so is all of a row that has nothing selected."""
    x = clean(accumulate(x), where, -jnp.inf)
    total = logsumexp(x, axis, keepdims=True)
    possible = ~jnp.isneginf(x)
    return jnp.where(possible, jnp.where(possible, x, 0) - jnp.where(jnp.isneginf(total), 0, total), -jnp.inf)


def softmax(x: Array, axis: int = -1, *, where: Array | None = None) -> Array:
    """Masked softmax; masked entries are 0, and so is all of a row that has nothing selected.

    >>> print(softmax(jnp.array([0., 0., 7.]), where=jnp.array([True, True, False])))
    [0.5 0.5 0. ]
    """
    logs = log_softmax(x, axis, where=where)
    possible = ~jnp.isneginf(logs)
    return jnp.where(possible, jnp.exp(jnp.where(possible, logs, 0)), 0)


def suffix_logsumexp(x: Array, *, where: Array | None = None) -> Array:
    """``log sum_{l >= k} exp(x_l)`` for every k along the last axis, stable at any magnitude.

    >>> print(suffix_logsumexp(jnp.array([0., 0., 0.])))
    [1.0986123 0.6931472 0.       ]
    """
    x = clean(accumulate(x), where, -jnp.inf)
    possible = ~jnp.isneginf(x)
    peaks = jax.lax.stop_gradient(x)

    # (peak, sum of exponentials relative to the peak): the peaks are constants, the gradient flows through the sums
    def merge(left, right):
        peak = jnp.maximum(left[0], right[0])
        anchor = jnp.where(jnp.isneginf(peak), 0, peak)
        return peak, left[1] * jnp.exp(left[0] - anchor) + right[1] * jnp.exp(right[0] - anchor)

    leaves = jnp.where(possible, jnp.exp(jnp.where(possible, x - peaks, 0)), 0)
    peak, total = jax.lax.associative_scan(merge, (peaks, leaves), axis=x.ndim - 1, reverse=True)
    empty = total == 0
    return jnp.where(empty, -jnp.inf, jnp.where(empty, 0, peak) + jnp.log(jnp.where(empty, 1, total)))


def quantile(
    x: Array, q: float | Array, *, nearest: bool = False, where: Array | None = None, axis_name: AxisName = None
) -> Array:
    """Linear-interpolated quantile over all selected entries (``numpy.quantile``'s default); 0 of nothing.

    ``nearest`` takes the entry of the nearest rank instead (of the even one, half-way between two).
    """
    x = accumulate(x)
    where = jnp.ones(x.shape, bool) if where is None else jnp.broadcast_to(where, x.shape)
    values, selected = gather(x.ravel(), axis_name), gather(where.ravel(), axis_name)
    ordered = jnp.sort(jnp.where(selected, values, jnp.inf))
    n = selected.sum()
    position = q * jnp.maximum(n - 1, 0).astype(x.dtype)
    position = jnp.round(position) if nearest else position
    low = jnp.floor(position).astype(jnp.int32)
    high = jnp.minimum(low + 1, jnp.maximum(n - 1, 0))
    a, b = ordered[low], ordered[high]
    return jnp.where(n > 0, jnp.where(a == b, a, a + (b - a) * (position - low)), 0)


def gather(x: Array, axis_name: AxisName = None) -> Array:
    """``x`` of all shards, concatenated along the leading axis; the identity when there are none."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def shard_slice(x: Array, size: int, axis_name: AxisName = None) -> Array:
    """This shard's part, of ``size`` entries, of an array that :func:`gather` concatenated."""
    return x if axis_name is None else jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis_name) * size, size)


def ranks(keys: Array, where: Array, axis_name: AxisName = None) -> Array:
    """Rank (0 = largest) of every selected entry over all shards, ties by position; masked entries rank last."""
    flat, selected = keys.ravel(), jnp.broadcast_to(where, keys.shape).ravel()
    everything = gather(jnp.where(selected, flat, -jnp.inf), axis_name)
    # the flag sorts before the key, so that a selected -inf still ranks before a masked entry
    order = jnp.lexsort((-everything, ~gather(selected, axis_name)))
    rank = jnp.zeros(everything.shape, jnp.int32).at[order].set(jnp.arange(everything.size, dtype=jnp.int32))
    return shard_slice(rank, flat.size, axis_name).reshape(keys.shape)


def top_k_mask(keys: Array, k: int | Array, *, where: Array | None = None, axis_name: AxisName = None) -> Array:
    """True at exactly ``min(k, selected)`` entries: the largest of the selected ones over all shards, ties by position.

    The smallest key that is kept is found bit by bit from counts, so nothing is sorted and no shard sees the others'
    entries. NaN is smaller than everything.

    >>> print(top_k_mask(jnp.array([1., 5., 5., 9.]), 2, where=jnp.array([True, True, True, False])))
    [False  True  True False]
    """
    from rlx_kernels.most_probable import order_key, smallest

    flat = jax.lax.stop_gradient(accumulate(keys)).ravel()
    selected = jnp.ones(flat.shape, bool) if where is None else jnp.broadcast_to(where, keys.shape).ravel()
    key = jnp.where(jnp.isnan(flat), 0, order_key(flat))
    shard, shards = (0, 1) if axis_name is None else (jax.lax.axis_index(axis_name), jax.lax.axis_size(axis_name))
    position = shard * flat.size + jnp.arange(flat.size, dtype=jnp.int32)

    def total(mask: Array) -> Array:
        return psum(mask.sum(dtype=jnp.int32), axis_name)

    edge = smallest(lambda x: total(selected & (key > x)) < k, key.dtype.itemsize * 8, jnp.zeros((), key.dtype))
    above, equal = selected & (key > edge), selected & (key == edge)
    rest = k - total(above)
    end = smallest(lambda x: total(equal & (position < x)) >= rest, (shards * flat.size).bit_length(), jnp.int32(0))
    return (above | (equal & (position < end))).reshape(keys.shape)
