"""The XLA body in chunks of rows: the logits of one chunk are all that ever exists. Computes every statistic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlx_kernels import core, gradients, most_probable
from rlx_kernels.problem import (
    Head,
    Problem,
    from_bits,
    logits_of,
    raw_logits,
    temperature_of,
    to_bits,
    vary,
    zeros_like,
)


def forward(problem: Problem, spec: core.Spec, rows: int, axis_name: str | None = None) -> core.Sums:
    """Sums of each row, of this shard of the vocabulary; complete ones where they need a second look at the row."""
    size, count = sizes(problem, rows)
    if count == 1:
        return look(problem, spec, axis_name)
    shapes = jax.eval_shape(lambda: look(slice_of(problem, 0, size), spec, axis_name))

    def step(start: Any, fresh: Any, found: core.Sums, part: Problem) -> core.Sums:
        return write(found, look(part, spec, axis_name), start)

    return loop(problem, size, count, step, zeros_like(widened(shapes, problem), problem))


def backward(problem: Problem, rows: gradients.Gradient, spec: core.Spec, size: int) -> Problem:
    """Gradients, those of the weights and of hidden states in the accumulation type."""
    size, count = sizes(problem, size)
    alone = problem.other is None and problem.y is None and problem.temperature is None
    if problem.head.logits is not None and alone:
        count = 1  # elementwise: XLA writes the gradient at once and stores nothing else
    if count == 1:
        return union(*pull(problem, rows, spec, jnp.ones((problem.head.rows, 1), bool)))
    fresh = jnp.ones((size, 1), bool)
    shapes = jax.eval_shape(lambda: pull(slice_of(problem, 0, size), slice_rows(rows, 0, size), spec, fresh))
    shapes = widened(shapes[0], problem), shapes[1]

    def step(start: Any, fresh: Any, found: tuple[Problem, Problem], part: Problem) -> tuple[Problem, Problem]:
        of_rows, summed = pull(part, slice_rows(rows, start, size), spec, fresh)
        return write(found[0], of_rows, start), jax.tree.map(jnp.add, found[1], summed)

    written, summed = loop(problem, size, count, step, to_bits(zeros_like(shapes, problem, rows)))
    return union(from_bits(written, shapes[0]), summed)


def look(part: Problem, spec: core.Spec, axis_name: str | None = None) -> core.Sums:
    """Sums of the rows of one chunk."""
    z, columns = logits_of(part, part.head, spec), _columns(part)
    other = None if part.other is None else logits_of(part, part.other, spec)
    x = core.sums(z, spec, columns=columns, y=part.y, other=other)
    if spec.needs("t"):
        x = x._replace(t=target_logit(z, part.targets - part.offset))
    if not spec.second_look:
        return x
    vocab = part.head.columns
    if axis_name is not None:
        x, vocab = core.merge_shards(x, spec, axis_name), vocab * jax.lax.axis_size(axis_name)
    return most_probable.second_look(z, x, spec, columns, vocab, other, most_probable.shards(axis_name))


def pull(part: Problem, rows: gradients.Gradient, spec: core.Spec, fresh: jax.Array) -> tuple[Problem, Problem]:
    """Gradients of one chunk: what belongs to its rows, and what is summed over its ``fresh`` rows."""
    temperature = temperature_of(part, spec)
    raw: Any = raw_logits(part.head)
    other_raw: Any = None if part.other is None else raw_logits(part.other)
    z = core.transform(raw, temperature, spec.softcap)
    other: Any = None if other_raw is None else core.transform(other_raw, temperature, spec.softcap)
    options = {"columns": _columns(part), "targets": part.targets, "y": part.y, "other": other}
    found: Any = gradients.dlogits(z, rows, spec, **options)
    if part.live is not None:
        found = jax.tree.map(lambda d: jnp.where(part.live, d, 0), found)
    dz, dy, dother = found
    dtemperature = None
    if part.temperature is not None:
        weighted = core.times(dz, z) if dother is None else core.times(dz, z) + core.times(dother, other)
        dtemperature = -weighted.sum(-1, keepdims=True) / temperature
    own: Any = _pull(part.head, core.transform_gradient(dz, raw, temperature, spec.softcap), fresh)
    second: Any = (None, None)
    if part.other is not None and other_raw is not None and dother is not None:
        second = _pull(part.other, core.transform_gradient(dother, other_raw, temperature, spec.softcap), fresh)
    shared = part.y is not None and part.y.shape[0] == 1
    summed_y = jnp.where(fresh, dy, 0).sum(0, keepdims=True) if shared else None
    of_rows = Problem(own[0], other=second[0], y=None if shared else dy, temperature=dtemperature)
    return of_rows, Problem(own[1], other=second[1], y=summed_y)


def widened(shapes: Any, problem: Problem) -> Any:
    """Shapes of the results of a chunk, for all rows."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((problem.head.rows, *s.shape[1:]), s.dtype), shapes)


def target_logit(z: jax.Array, targets: jax.Array) -> jax.Array:
    """Logits ``[N, 1]`` at ``targets [N, 1]``, 0 where those are outside of the tile."""
    inside = (targets >= 0) & (targets < z.shape[-1])
    return jnp.where(inside, jnp.take_along_axis(z, jnp.where(inside, targets, 0), -1), 0)


def _columns(part: Problem) -> jax.Array:
    return part.offset + jax.lax.broadcasted_iota(jnp.int32, (1, part.head.columns), 1)


def _pull(head: Head, draw: jax.Array, fresh: jax.Array) -> tuple[Head, Head]:
    """Gradients of the rows of a head, and those summed over rows, from the gradient of its logits."""
    if head.logits is not None:
        return Head(logits=draw.astype(head.dtype)), Head()
    wide, dbias = draw.dtype, None
    if head.bias is not None:
        dbias = jnp.where(fresh, draw, 0).sum(0)
    draw = draw.astype(head.dtype)
    dw = jnp.dot(transpose(jnp.where(fresh, head.x, 0)), draw, preferred_element_type=wide)
    return Head(x=jnp.dot(draw, head.w.T, preferred_element_type=wide)), Head(w=dw, bias=dbias)


def transpose(x: jax.Array) -> jax.Array:
    """``x.T``, on a CPU as an array of its own: folded into the product with the gradient it halves the rate."""
    return jax.lax.optimization_barrier(x.T) if jax.default_backend() == "cpu" else x.T


def union(first: Any, second: Any) -> Any:
    """Of two trees of the same type, whatever each has."""
    if isinstance(first, tuple) and isinstance(second, tuple):
        return type(first)(*map(union, first, second))
    return second if first is None else first


def sizes(problem: Problem, rows: int) -> tuple[int, int]:
    """Rows of a chunk, spread evenly, and how many chunks there are."""
    n = problem.head.rows
    count = max(math.ceil(n / rows), 1)
    return math.ceil(n / count), count


def slice_of(problem: Problem, start: Any, size: int) -> Problem:
    """The rows of a chunk; weights and shared numbers as they are."""

    def rows(value: Any, *names: str) -> Any:
        return value and value._replace(**{name: slice_rows(getattr(value, name), start, size) for name in names})

    names = ["targets", "temperature", "live"]
    if problem.y is not None and problem.y.shape[0] > 1:
        names.append("y")
    head, other = rows(problem.head, "logits", "x"), problem.other and rows(problem.other, "logits", "x")
    return rows(problem._replace(head=head, other=other), *names)


def slice_rows(tree: Any, start: Any, size: int) -> Any:
    """``size`` rows of every array, from ``start`` on."""
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), tree)


def write(found: Any, part: Any, start: Any) -> Any:
    """``found`` with the rows of ``part`` from ``start`` on."""
    return jax.tree.map(lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, to_bits(y), start, 0), found, part)


def loop(problem: Problem, size: int, count: Any, step: Callable, found: Any) -> Any:
    """``step(start, fresh, found, part)`` for each chunk that has a live row.

    The last chunk ends with the last row and so may overlap the one before: rows are written again with the same
    numbers, sums take ``fresh [size, 1]`` ones alone. No padding, no copy of the logits.
    """

    given = problem.head.logits
    half = jax.default_backend() == "cpu" and given is not None and given.dtype.itemsize < 4

    def body(i: Any, found: Any) -> Any:
        here = problem
        if half:  # or XLA converts all of the logits to float32 before the loop
            logits, i = jax.lax.optimization_barrier((problem.head.logits, i))
            here = problem._replace(head=Head(logits))
        start = jnp.minimum(i * size, problem.head.rows - size)
        fresh = start + jax.lax.broadcasted_iota(jnp.int32, (size, 1), 0) >= i * size
        return step(start, fresh, found, slice_of(here, start, size))

    if problem.count is not None:
        count = jnp.minimum((problem.count + size - 1) // size, count)
        found = vary(found, jnp.reshape(problem.count, (1,)))
    return jax.lax.fori_loop(0, count, body, found)
