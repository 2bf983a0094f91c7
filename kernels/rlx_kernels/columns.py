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


def forward(problem: Problem, spec: core.Spec, size: int, turned: bool = False) -> core.Sums:
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

    shapes = jax.eval_shape(lambda: chunk(_slice(problem, problem.head.w, 0, size, False), 0, None))
    nothing = zeros_like(shapes, problem)
    nothing = nothing._replace(m=nothing.m + core.LOWEST)
    return _loop(problem, size, count, even, step, nothing, turned)


def backward(problem: Problem, rows: gradients.Gradient, spec: core.Spec, size: int, turned: bool = False) -> Problem:
    """Gradients; that of hidden states in the accumulation type.

    ``turned`` collects the gradient of the weights as ``[V, D]``, and gives the transpose of that: an embedding whose
    transpose the weights are gets it without a copy.
    """
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
        product = (draw.T, head.x) if turned else (flipped, draw)
        dw = jnp.dot(*product, preferred_element_type=wide).astype(head.w.dtype)
        draw = draw if first is None else jnp.where(index >= first, draw, 0)
        return Head(x=jnp.dot(draw, part.head.w.T, preferred_element_type=wide), w=dw, bias=dbias)

    size, count, even = _sizes(problem, size)
    if count == 1:
        return _upright(chunk(problem, 0, None), turned)

    def step(start: Any, first: Any, found: Head, part: Problem) -> Head:
        new = chunk(part, start, first)
        w = _write(found.w, new.w, start, 0 if turned else 1)
        return Head(x=found.x + new.x, w=w, bias=_write(found.bias, new.bias, start, 0))

    def shaped(x: Any, dtype: Any) -> Any:
        return None if x is None else jax.ShapeDtypeStruct(x.shape, dtype)

    w = jax.ShapeDtypeStruct(head.w.shape[::-1] if turned else head.w.shape, head.w.dtype)
    shapes = Head(x=shaped(head.x, wide), w=w, bias=shaped(head.bias, wide))
    found = _loop(problem, size, count, even, step, to_bits(zeros_like(shapes, problem, rows)), turned)
    return _upright(from_bits(found, shapes), turned)


def _upright(found: Head, turned: bool) -> Problem:
    return Problem(found._replace(w=found.w.T) if turned else found)


def _write(found: Any, part: Any, start: Any, axis: int) -> Any:
    """``found`` with the columns of ``part``, which stand on ``axis``."""
    return None if found is None else jax.lax.dynamic_update_slice_in_dim(found, to_bits(part), start, axis)


def _sizes(problem: Problem, columns: int) -> tuple[int, int, bool]:
    """Columns of a chunk, multiples of 128 spread evenly, how many chunks there are, and whether they fit exactly."""
    vocab = problem.head.columns
    count = max(math.ceil(vocab / columns), 1)
    size = min(math.ceil(math.ceil(vocab / count) / 128) * 128, vocab)
    return size, math.ceil(vocab / size), vocab % size == 0


def _slice(problem: Problem, w: jax.Array, start: Any, size: int, turned: bool) -> Problem:
    """The columns of a chunk; ``w`` is ``[V, D]`` if it is turned."""
    head = problem.head
    bias = None if head.bias is None else jax.lax.dynamic_slice_in_dim(head.bias, start, size)
    own = jax.lax.dynamic_slice_in_dim(w, start, size, 0 if turned else 1)
    return problem._replace(head=head._replace(w=own.T if turned else own, bias=bias))


def _loop(problem: Problem, size: int, count: int, even: bool, step: Callable, found: Any, turned: bool) -> Any:
    """``step(start, first, found, part)`` for each chunk; the last may repeat columns, those before its ``first``."""
    half = jax.default_backend() == "cpu" and problem.head.w.dtype.itemsize < 4
    whole = problem.head.w.T if turned else problem.head.w  # what a loop holds must exist

    def body(i: Any, found: Any) -> Any:
        w = whole
        if half:  # or XLA converts all of the weights to float32 before the loop
            w, i = jax.lax.optimization_barrier((w, i))
        start = jnp.minimum(i * size, problem.head.columns - size)
        return step(start, None if even else i * size - start, found, _slice(problem, w, start, size, turned))

    return jax.lax.fori_loop(0, count, body, found)
