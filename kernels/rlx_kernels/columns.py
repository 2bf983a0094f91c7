"""The XLA body in chunks of the vocabulary, for large products: gradients of the weights are written once, in place.

Statistics of a single sweep only; what needs the whole row at once, numbers of the tokens or another policy is left to
:mod:`rlx_kernels.rows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlx_kernels import core, gradients
from rlx_kernels.problem import Head, Problem, from_bits, logits_of, raw_logits, to_bits, zeros_like
from rlx_kernels.rows import target_logit, transpose


def check(problem: Problem, spec: core.Spec) -> None:
    """Raises NotImplementedError, with the reason, for what this body leaves to others."""
    if problem.head.logits is not None:
        raise NotImplementedError("chunks of the vocabulary are for hidden states, not for given logits")
    if spec.second_look or problem.other is not None or problem.y is not None:
        raise NotImplementedError(f"chunks of the vocabulary cannot give {', '.join(spec.statistics)}")
    if problem.temperature is not None:
        raise NotImplementedError("chunks of the vocabulary take a temperature that is a Python number")


def forward(problem: Problem, spec: core.Spec, size: int) -> core.Sums:
    """Sums of each row, of this shard of the vocabulary."""

    def chunk(part: Problem, start: Any, first: Any) -> core.Sums:
        z = logits_of(part, part.head, spec)
        index = jax.lax.broadcasted_iota(jnp.int32, (1, z.shape[-1]), 1)
        z = z if first is None else jnp.where(index >= first, z, -jnp.inf)
        x = core.sums(z, spec, columns=part.offset + start + index)
        if not spec.needs("t"):
            return x
        target = part.targets - part.offset - start
        return x._replace(t=target_logit(z, target if first is None else jnp.where(target < first, -1, target)))

    size, count, even = _sizes(problem, size)
    if count == 1:
        return chunk(problem, 0, None)

    def step(start: Any, first: Any, found: core.Sums, part: Problem) -> core.Sums:
        return core.merge(found, chunk(part, start, first), spec)

    shapes = jax.eval_shape(lambda: chunk(_slice(problem, 0, size), 0, None))
    nothing = zeros_like(shapes, problem)
    nothing = nothing._replace(m=nothing.m + core.LOWEST)
    return _loop(problem, size, count, even, step, nothing)


def backward(problem: Problem, rows: gradients.Gradient, spec: core.Spec, size: int) -> Problem:
    """Gradients; that of hidden states in the accumulation type."""
    head, wide = problem.head, core.accumulation_dtype(problem.head.dtype)
    flipped = transpose(head.x)

    def chunk(part: Problem, start: Any, first: Any) -> Head:
        """Gradients of the weights of this chunk, and its share of that of the hidden states."""
        raw = raw_logits(part.head)
        z = core.transform(raw, spec.temperature, spec.softcap)
        index = jax.lax.broadcasted_iota(jnp.int32, (1, z.shape[-1]), 1)
        dz = gradients.dlogits(z, rows, spec, columns=part.offset + start + index, targets=part.targets)[0]
        draw = core.transform_gradient(dz, raw, spec.temperature, spec.softcap)
        dbias = None if head.bias is None else draw.sum(0)
        draw = draw.astype(head.dtype)
        dw = jnp.dot(flipped, draw, preferred_element_type=wide).astype(head.w.dtype)
        draw = draw if first is None else jnp.where(index >= first, draw, 0)
        return Head(x=jnp.dot(draw, part.head.w.T, preferred_element_type=wide), w=dw, bias=dbias)

    size, count, even = _sizes(problem, size)
    if count == 1:
        return Problem(chunk(problem, 0, None))

    def step(start: Any, first: Any, found: Head, part: Problem) -> Head:
        new = chunk(part, start, first)
        return Head(x=found.x + new.x, w=_write(found.w, new.w, start), bias=_write(found.bias, new.bias, start))

    def shaped(x: Any, dtype: Any) -> Any:
        return None if x is None else jax.ShapeDtypeStruct(x.shape, dtype)

    shapes = Head(x=shaped(head.x, wide), w=shaped(head.w, head.w.dtype), bias=shaped(head.bias, wide))
    found = _loop(problem, size, count, even, step, to_bits(zeros_like(shapes, problem, rows)))
    return Problem(from_bits(found, shapes))


def _write(found: Any, part: Any, start: Any) -> Any:
    """``found`` with the columns of ``part``."""
    if found is None:
        return None
    return jax.lax.dynamic_update_slice_in_dim(found, to_bits(part), start, found.ndim - 1)


def _sizes(problem: Problem, columns: int) -> tuple[int, int, bool]:
    """Columns of a chunk, multiples of 128 spread evenly, how many chunks there are, and whether they fit exactly."""
    vocab = problem.head.columns
    count = max(math.ceil(vocab / columns), 1)
    size = min(math.ceil(math.ceil(vocab / count) / 128) * 128, vocab)
    return size, math.ceil(vocab / size), vocab % size == 0


def _slice(problem: Problem, start: Any, size: int) -> Problem:
    head = problem.head
    bias = None if head.bias is None else jax.lax.dynamic_slice_in_dim(head.bias, start, size)
    return problem._replace(head=head._replace(w=jax.lax.dynamic_slice_in_dim(head.w, start, size, 1), bias=bias))


def _loop(problem: Problem, size: int, count: int, even: bool, step: Callable, found: Any) -> Any:
    """``step(start, first, found, part)`` for each chunk; the last may repeat columns, those before its ``first``."""
    half = jax.default_backend() == "cpu" and problem.head.w.dtype.itemsize < 4

    def body(i: Any, found: Any) -> Any:
        here = problem
        if half:  # or XLA converts all of the weights to float32 before the loop
            w, i = jax.lax.optimization_barrier((problem.head.w, i))
            here = problem._replace(head=problem.head._replace(w=w))
        start = jnp.minimum(i * size, problem.head.columns - size)
        return step(start, None if even else i * size - start, found, _slice(here, start, size))

    return jax.lax.fori_loop(0, count, body, found)
