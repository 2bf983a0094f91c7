"""TPU kernels for a head: the logits of one block at a time, recomputed on the way back, never stored.

Forward and the gradient of ``x`` keep a block of rows of ``x`` and let ``w`` stream by; the gradient of ``w`` keeps a
block of columns of ``w`` and lets ``x`` stream by. Three products of twice ``N D V`` operations become five, and no
array as large as the logits is ever needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from rlx_kernels import core, gradients
from rlx_kernels import tpu_tiles as tiles
from rlx_kernels.problem import Head, Problem

_LANES = 128
_SPLIT = 16  # bytes for the bfloat16 parts of a float32 factor, twice as there are two products
_RESULT = 12  # bytes for a number that is summed: the sum and what a product adds to it
_TEMPORARY = 16  # bytes for each logit of a block: what is computed from it, in float32


def _dot(a: Any, b: Any, axis_of_a: int, axis_of_b: int) -> jax.Array:
    """Product over one axis of each in float32; float32 factors are not rounded to bfloat16."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    axes = (((axis_of_a,), (axis_of_b,)), ((), ()))
    return jax.lax.dot_general(a, b, axes, precision=precision, preferred_element_type=jnp.float32)


def _turned(head: Head) -> bool:
    """Whether a TPU stores ``w`` with the vocabulary first, as it does where that takes less padding.

    Its transpose is then what the memory holds, and ``w`` would be a copy.
    """
    depth, columns = head.w.shape
    return columns % _LANES != 0 and depth % _LANES == 0


def _operands(head: Head, grid: tiles.Tiling) -> dict[str, tiles.Operand]:
    """Blocks of the head, as deep as it is."""
    depth = head.w.shape[0]
    found = {"x": tiles.Operand(head.x, (grid.bn, depth), lambda i, j: (i, 0))}
    if _turned(head):
        found["w"] = tiles.Operand(head.w.T, (grid.bv, depth), lambda i, j: (j, 0))
    else:
        found["w"] = tiles.Operand(head.w, (depth, grid.bv), lambda i, j: (0, j))
    if head.bias is not None:
        found["bias"] = tiles.Operand(head.bias[None], (1, grid.bv), lambda i, j: (0, j))
    return found


def _raw(head: Head, refs: Mapping[str, Any]) -> jax.Array:
    """Logits of a block before soft-cap and temperature."""
    raw = _dot(refs["x"][...], refs["w"][...], 1, int(_turned(head)))
    return raw + refs["bias"][...].astype(jnp.float32) if "bias" in refs else raw


def _tiling(head: Head, kernel: str, *, row: int = 0, column: int = 0) -> tiles.Tiling:
    """Blocks of a kernel; for each number of a row of ``x`` and a column of ``w`` it takes these bytes more."""
    width = head.dtype.itemsize
    fetched = 2 * width + (_SPLIT if width == 4 else 0)
    depth = head.w.shape[0]
    memory = {"row": depth * (fetched + row), "column": depth * (fetched + column)}
    return tiles.tiling(head.rows, head.columns, kernel, tile=_TEMPORARY, **memory)


def forward(problem: Problem, spec: core.Spec, interpret: Any) -> core.Sums:
    """Sums of every row."""
    head = problem.head
    grid = _tiling(head, "product_forward")
    names = [name for name in tiles.SUMS if name in ("m", "s") or spec.needs(name)]
    last = grid.column_blocks - 1
    inputs = _operands(head, grid)
    if spec.needs("t"):
        inputs["targets"] = tiles.Operand(tiles.local(problem, problem.targets), (grid.bn, 1), lambda i, j: (i, 0))

    def kernel(i: Any, j: Any, count: Any, refs: Mapping[str, Any]) -> None:
        pl.when(j == 0)(lambda: tiles.clear(names, refs))

        def sweep() -> None:
            z = core.transform(_raw(head, refs), spec.temperature, spec.softcap)
            columns = grid.columns(j)
            if grid.ragged:
                z = jnp.where(columns < grid.v, z, -jnp.inf)
            targets = refs["targets"][...] if "targets" in refs else None
            tiles.add(names, refs, core.sums(z, spec, columns=columns, targets=targets), spec)

        pl.when(i * grid.bn < count)(sweep)
        pl.when(j == last)(lambda: tiles.store(names, refs, refs["packed"]))

    packed = tiles.call(
        kernel,
        grid,
        problem,
        inputs,
        {"packed": tiles.packed_sums(grid)},
        tiles.scratch_of(names, grid),
        by_rows=True,
        interpret=interpret,
        name="statistics_of_head",
    )["packed"]
    return tiles.sums_of(packed, names, problem)


def backward(problem: Problem, rows: gradients.Gradient, spec: core.Spec, interpret: Any) -> Problem:
    """Gradients with respect to ``x``, ``w`` and ``bias``."""
    known = tiles.known_of(problem, rows)
    dx = _gradient_of_x(problem, known, spec, interpret)
    dw, dbias = _gradient_of_w(problem, known, spec, interpret)
    return Problem(Head(x=dx, w=dw, bias=dbias))


def _draw(head: Head, refs: Mapping[str, Any], known: tiles.Known, spec: core.Spec, columns: Any) -> jax.Array:
    """Gradient of a block of logits before soft-cap and temperature."""
    raw = _raw(head, refs)
    z = core.transform(raw, spec.temperature, spec.softcap)
    dz, _, _ = known.dlogits(z, spec, columns=columns)
    return core.transform_gradient(dz, raw, spec.temperature, spec.softcap)


def _gradient_of_x(problem: Problem, known: tiles.Known, spec: core.Spec, interpret: Any) -> jax.Array:
    head = problem.head
    depth, width = head.w.shape[0], head.dtype.itemsize
    grid = _tiling(head, "product_dx", row=_RESULT + 2 * width, column=width)
    last = grid.column_blocks - 1
    inputs, axis = _operands(head, grid), int(_turned(head))

    def kernel(i: Any, j: Any, count: Any, refs: Mapping[str, Any]) -> None:
        total = refs["sum"]
        here = tiles.unpack(refs["known"], known)
        pl.when(j == 0)(lambda: tiles.zero(total))

        def pull() -> None:
            columns = grid.columns(j)
            draw = _draw(head, refs, here, spec, columns)
            if grid.ragged:
                draw = jnp.where(columns < grid.v, draw, 0)
            draw = draw.astype(head.dtype)

            def multiply(edge: bool) -> None:
                w = refs["w"][...]
                if edge:
                    tokens = j * grid.bv + jax.lax.broadcasted_iota(jnp.int32, w.shape, 1 - axis)
                    w = jnp.where(tokens < grid.v, w, 0)
                total[...] += _dot(draw, w, 1, 1 - axis)

            tiles.either(j == last if grid.ragged else False, multiply)

        pl.when(i * grid.bn < count)(pull)

        def store() -> None:
            dx = jnp.where(tiles.alive(here, grid, i, count), total[...], 0)
            refs["dx"][...] = dx.astype(refs["dx"].dtype)

        pl.when(j == last)(store)

    return tiles.call(
        kernel,
        grid,
        problem,
        inputs | {"known": tiles.pack(known, grid)},
        {"dx": inputs["x"]},
        {"sum": ((grid.bn, depth), jnp.float32)},
        by_rows=True,
        interpret=interpret,
        name="gradient_of_hidden",
    )["dx"]


def _gradient_of_w(
    problem: Problem, known: tiles.Known, spec: core.Spec, interpret: Any
) -> tuple[jax.Array, jax.Array | None]:
    head = problem.head
    depth, width = head.w.shape[0], head.dtype.itemsize
    grid = _tiling(head, "product_dw", row=width, column=_RESULT + 2 * width)
    inputs = _operands(head, grid)
    outputs = {f"d{name}": inputs[name] for name in ("w", "bias") if name in inputs}
    scratch = {"sum": ((grid.bv, depth), jnp.float32)}
    if head.bias is not None:
        scratch["sum of bias"] = ((1, grid.bv), jnp.float32)

    def kernel(i: Any, j: Any, count: Any, refs: Mapping[str, Any]) -> None:
        pl.when(i == 0)(lambda: tiles.zero(*(refs[name] for name in scratch)))
        here = tiles.unpack(refs["known"], known)

        def pull() -> None:
            alive = tiles.alive(here, grid, i, count)
            draw = jnp.where(alive, _draw(head, refs, here, spec, grid.columns(j)), 0)
            if head.bias is not None:
                refs["sum of bias"][...] += draw.sum(0, keepdims=True)
            draw = draw.astype(head.dtype)

            def multiply(edge: bool) -> None:
                x = refs["x"][...]
                # The gradient of a block of logits is smaller than a block of x: better to turn that.
                refs["sum"][...] += _dot(draw, jnp.where(alive, x, 0) if edge else x, 0, 0)

            tiles.either((i + 1) * grid.bn > count if problem.live is None else True, multiply)

        pl.when(i * grid.bn < count)(pull)

        def store() -> None:
            dw = refs["sum"][...].astype(refs["dw"].dtype)
            refs["dw"][...] = dw if _turned(head) else dw.T
            if head.bias is not None:
                refs["dbias"][...] = refs["sum of bias"][...].astype(refs["dbias"].dtype)

        pl.when(i == grid.row_blocks - 1)(store)

    found = tiles.call(
        kernel,
        grid,
        problem,
        inputs | {"known": tiles.pack(known, grid)},
        outputs,
        scratch,
        by_rows=False,
        interpret=interpret,
        name="gradient_of_unembedding",
    )
    dw = found["dw"].T if _turned(head) else found["dw"]
    return dw, found["dbias"][0] if head.bias is not None else None
