"""Statistics of ``x @ w`` in row chunks with a hand-written gradient: the logits of one chunk are all that ever exists.

Forward and backward are plain functions of local arrays. Given a mesh they run inside ``shard_map``: rows split over
the batch axes, the vocabulary over ``vocab_axis``; autodiff never goes through the loop nor through the sharding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from rlx_kernels import core


class Options(NamedTuple):
    """What is fixed at trace time; ``rows`` is the chunk, ``None`` axes are not split."""

    statistics: tuple[str, ...]
    temperature: float = 1.0
    softcap: float | None = None
    rows: int = 256
    mesh: Mesh | None = None
    batch_axes: tuple[str, ...] = ()
    vocab_axis: str | None = None


def pick_rows(vocab: int, itemsize: int = 4, platform: str | None = None) -> int:
    """Rows of a chunk by the bytes of its logits: cache and page faults count on a CPU, product size elsewhere.

    >>> pick_rows(8192, platform="cpu"), pick_rows(151936, platform="cpu"), pick_rows(151936, platform="gpu")
    (256, 96, 864)
    """
    platform = platform or jax.default_backend()
    low, high, budget = (96, 256, 32 << 20) if platform == "cpu" else (512, 8192, 512 << 20)
    return min(max(budget // (itemsize * vocab) // 32 * 32, low), high)


def linear_statistics(
    x: jax.Array, w: jax.Array, bias: jax.Array | None, targets: jax.Array, options: Options
) -> dict[str, jax.Array]:
    """Statistics of ``transform(x @ w + bias)`` at ``targets``: ``x [N, D]``, ``w [D, V]``, ``bias [V]`` or None.

    >>> out = linear_statistics(jnp.ones((2, 3)), jnp.zeros((3, 8)), None, jnp.array([1, 7]), Options(("entropy",)))
    >>> print(out["entropy"].round(4))
    [2.0794 2.0794]
    """
    if jax.sharding.get_abstract_mesh().manual_axes:
        # In a caller's shard_map: the weights take the variance of the rows, whose gradients they collect.
        w, bias = _vary(w, x), None if bias is None else _vary(bias, x)
    return _linear_statistics(x, w, bias, targets, options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _linear_statistics(x, w, bias, targets, options: Options) -> dict[str, jax.Array]:
    return _forward(x, w, bias, targets, options)[0]


def _specs(options: Options, bias) -> tuple[Any, Any, Any, Any]:
    """Partition of rows ``[N]``, ``x``, ``w`` and ``bias``."""
    rows, columns = P(options.batch_axes or None), options.vocab_axis
    return rows, P(*rows, None), P(None, columns), None if bias is None else P(columns)


def _on_mesh(function: Callable, options: Options, in_specs, out_specs) -> Callable:
    if options.mesh is None:
        return function
    return jax.shard_map(function, mesh=options.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _forward(x, w, bias, targets, options: Options):
    rows, x_spec, w_spec, bias_spec = _specs(options, bias)
    local = functools.partial(_local_forward, options)
    out, sums = _on_mesh(local, options, (x_spec, w_spec, bias_spec, rows), rows)(x, w, bias, targets)
    return out, (x, w, bias, targets, sums)


def _backward(options: Options, residuals, cotangents):
    x, w, bias, targets, sums = residuals
    rows, x_spec, w_spec, bias_spec = _specs(options, bias)
    local = functools.partial(_local_backward, options)
    specs = (x_spec, w_spec, bias_spec, rows, rows, rows)
    sharded = _on_mesh(local, options, specs, (x_spec, w_spec, bias_spec))
    dx, dw, dbias = sharded(x, w, bias, targets, sums, cotangents)
    return dx, dw, dbias, None


_linear_statistics.defvjp(_forward, _backward)


def _chunks(tree, rows: int):
    """``[N, ...] -> [C, R, ...]`` with the rows spread evenly and zero rows at the end."""
    n = jax.tree.leaves(tree)[0].shape[0]
    count = max(math.ceil(n / rows), 1)
    size = math.ceil(n / count)

    def split(leaf):
        padding = ((0, count * size - n),) + ((0, 0),) * (leaf.ndim - 1)
        return jnp.pad(leaf, padding).reshape(count, size, *leaf.shape[1:])

    return jax.tree.map(split, tree)


def _join(tree, n: int):
    """Undoes ``_chunks``."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n], tree)


def _raw(x, w, bias):
    raw = jnp.dot(x, w, preferred_element_type=core.accumulation_dtype(x.dtype))
    return raw if bias is None else raw + bias.astype(raw.dtype)


def _offset(options: Options, columns: int):
    """First column of this shard of the vocabulary."""
    return 0 if options.vocab_axis is None else jax.lax.axis_index(options.vocab_axis) * columns


def _local_forward(options: Options, x, w, bias, targets):
    offset = _offset(options, w.shape[1])

    def chunk(args):
        x, targets = args
        z = core.transform(_raw(x, w, bias), options.temperature, options.softcap)
        index = targets - offset
        inside = (index >= 0) & (index < w.shape[1])
        target_logit = jnp.take_along_axis(z, jnp.where(inside, index, 0)[:, None], 1)[:, 0]
        sums = core.sums(z, options.statistics)
        sums = sums if sums.top is None else sums._replace(top=sums.top + offset)
        return sums, jnp.where(inside, target_logit, 0)

    sums, target_logit = _join(jax.lax.map(chunk, _chunks((x, targets), options.rows)), x.shape[0])
    vocab = w.shape[1]
    if options.vocab_axis is not None:
        sums = core.merge_shards(sums, options.vocab_axis)
        target_logit = jax.lax.psum(target_logit, options.vocab_axis)
        vocab *= jax.lax.axis_size(options.vocab_axis)
    target_logit = jnp.where((targets >= 0) & (targets < vocab), target_logit, jnp.nan)
    return core.finalise(sums, target_logit, options.statistics), sums


def _local_backward(options: Options, x, w, bias, targets, sums, cotangents):
    offset, wide = _offset(options, w.shape[1]), core.accumulation_dtype(x.dtype)
    coefficients = core.coefficients(sums, cotangents)

    def chunk(carry, args):
        dw, dbias = carry
        x, targets, sums, coefficients = args
        raw = _raw(x, w, bias)
        z = core.transform(raw, options.temperature, options.softcap)
        sums = sums if sums.top is None else sums._replace(top=sums.top - offset)
        dz = core.dlogits(z, targets - offset, sums, coefficients)
        dz = core.transform_gradient(dz, raw, options.temperature, options.softcap)
        dbias = None if bias is None else dbias + dz.sum(0)
        dz = dz.astype(x.dtype)
        dw = dw + jnp.dot(_transpose(x), dz, preferred_element_type=wide)
        return (dw, dbias), jnp.dot(dz, w.T, preferred_element_type=wide)

    dbias: Any
    start = (_zeros(w, x, wide), None if bias is None else _zeros(bias, x, wide))
    chunks = _chunks((x, targets, sums, coefficients), options.rows)
    (dw, dbias), dx = jax.lax.scan(chunk, start, chunks)
    dx = _join(dx, x.shape[0])
    if options.vocab_axis is not None:
        dx = jax.lax.psum(dx, options.vocab_axis)
    if options.batch_axes:
        dw, dbias = jax.lax.psum((dw, dbias), options.batch_axes)
    dbias = None if bias is None else dbias.astype(bias.dtype)
    return dx.astype(x.dtype), dw.astype(w.dtype), dbias


def _transpose(x: jax.Array) -> jax.Array:
    """``x.T``, on a CPU as an array of its own: folded into the product with ``dz`` it halves the rate."""
    return jax.lax.optimization_barrier(x.T) if jax.default_backend() == "cpu" else x.T


def _vary(value: jax.Array, x: jax.Array) -> jax.Array:
    """``value``, typed as varying over the mapped axes that ``x`` varies over.

    A select is typed so wherever an operand is, under every version of jax; XLA folds it away.
    """
    return jnp.where(True, value, x.sum(dtype=value.dtype))


def _zeros(like: jax.Array, x: jax.Array, dtype) -> jax.Array:
    """Zeros shaped like ``like`` for a carry that collects over the rows of ``x``."""
    zeros = jnp.zeros(like.shape, dtype)
    return _vary(zeros, x) if jax.sharding.get_abstract_mesh().manual_axes else zeros
