"""TPU kernels for the statistics of given logits, and the choice of the kernels for a head.

A block of rows keeps its sums in VMEM while the blocks of the vocabulary stream by. Nothing is padded: a block that
sticks out of an array sees garbage there, which is masked before it can be summed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from rlx_kernels import core, gradients, tpu_product
from rlx_kernels import tpu_tiles as tiles
from rlx_kernels.problem import Head, Problem
from rlx_kernels.rows import target_logit

_DTYPES = ("bfloat16", "float32")
_TEMPORARY = 32  # bytes for each element of a tile: what is computed from it, in float32


def forward(problem: Problem, spec: core.Spec, *, interpret: Any = None) -> core.Sums:
    """Sums of every row over this shard of the vocabulary; fields ``[N, 1]``."""
    check(problem, spec)
    body = _forward if problem.head.x is None else tpu_product.forward
    return body(problem, spec, interpret)


def backward(problem: Problem, rows: gradients.Gradient, spec: core.Spec, *, interpret: Any = None) -> Problem:
    """Gradients with respect to the arrays of ``problem``."""
    check(problem, spec)
    body = _backward if problem.head.x is None else tpu_product.backward
    return body(problem, rows, spec, interpret)


def check(problem: Problem, spec: core.Spec) -> None:
    """Declines what these kernels do not do."""
    head, other, y = problem.head, problem.other, problem.y
    product = head.x is not None
    whole = [name for name in spec.statistics if name in core.WHOLE_ROW]
    types = {str(a.dtype) for a in jax.tree.leaves((head, other, y))}
    strange = sorted(types - set(_DTYPES))
    reasons = {
        f"tpu kernels sweep a row once: no {', '.join(whole)}": bool(whole),
        "tpu kernels need a temperature that is a number": problem.temperature is not None,
        f"tpu kernels need {' or '.join(_DTYPES)}, not {', '.join(strange)}": bool(strange),
        "tpu kernels need x and w of the same type": product and head.x.dtype != head.w.dtype,
        "tpu kernels of a head take neither y nor another policy": product and (y is not None or other is not None),
        "tpu kernels need the other policy as logits": other is not None and other.logits is None,
        "tpu kernels need a vocabulary below 2^24 tokens": head.columns >= 1 << 24,
        "tpu kernels need a row and a token": not head.rows or not head.columns,
    }
    for reason, holds in reasons.items():
        if holds:
            raise NotImplementedError(reason)


def _arrays(problem: Problem, spec: core.Spec) -> dict[str, jax.Array]:
    """The arrays that are swept: the logits and what a statistic asks for."""
    found = {"logits": problem.head.logits}
    if spec.needs("ay"):
        found["y"] = problem.y
    if problem.other is not None and spec.needs("m2"):
        found["other"] = problem.other.logits
    return found


def _operands(arrays: Mapping[str, Any], grid: tiles.Tiling) -> dict[str, tiles.Operand]:
    """Blocks of the arrays; one of ``y [1, V]`` serves all rows."""

    def operand(array: Any) -> tiles.Operand:
        if array.shape[0] == 1 and grid.n != 1:
            return tiles.Operand(array, (1, grid.bv), lambda i, j: (0, j))
        return tiles.Operand(array, (grid.bn, grid.bv), lambda i, j: (i, j))

    return {name: operand(array) for name, array in arrays.items()}


def _load(refs: Mapping[str, Any], arrays: Mapping[str, Any], spec: core.Spec) -> tuple[dict, dict]:
    """Tiles in float32, as they are and after soft-cap and temperature."""
    raw = {name: refs[name][...].astype(jnp.float32) for name in arrays}
    return raw, {
        k: tile if k == "y" else core.transform(tile, spec.temperature, spec.softcap) for k, tile in raw.items()
    }


def _forward(problem: Problem, spec: core.Spec, interpret: Any) -> core.Sums:
    arrays = _arrays(problem, spec)
    names = [name for name in tiles.SUMS if name in ("m", "s") or (name != "t" and spec.needs(name))]
    memory = _TEMPORARY + 2 * sum(array.dtype.itemsize for array in arrays.values())
    grid = tiles.tiling(problem.head.rows, problem.head.columns, "logits_forward", tile=memory)
    last = grid.column_blocks - 1

    def kernel(i: Any, j: Any, count: Any, refs: Mapping[str, Any]) -> None:
        pl.when(j == 0)(lambda: tiles.clear(names, refs))

        def sweep(edge: bool) -> None:
            _, tile = _load(refs, arrays, spec)
            columns = grid.columns(j)
            for name in ("logits", "other") if edge else ():
                if name in tile:
                    tile[name] = jnp.where(columns < grid.v, tile[name], -jnp.inf)
            found = core.sums(tile["logits"], spec, columns=columns, y=tile.get("y"), other=tile.get("other"))
            tiles.add(names, refs, found, spec)

        pl.when(i * grid.bn < count)(lambda: tiles.either(j == last if grid.ragged else False, sweep))
        pl.when(j == last)(lambda: tiles.store(names, refs, refs["packed"]))

    packed = tiles.call(
        kernel,
        grid,
        problem,
        _operands(arrays, grid),
        {"packed": tiles.packed_sums(grid)},
        tiles.scratch_of(names, grid),
        by_rows=True,
        interpret=interpret,
        name="statistics_of_logits",
    )["packed"]
    sums = tiles.sums_of(packed, names, problem)
    if not spec.needs("t"):
        return sums
    # One look at the target beats a comparison for every token.
    raw = target_logit(problem.head.logits, problem.targets - tiles.offset_of(problem)).astype(jnp.float32)
    return sums._replace(t=core.transform(raw, spec.temperature, spec.softcap))


def _backward(problem: Problem, rows: gradients.Gradient, spec: core.Spec, interpret: Any) -> Problem:
    arrays = _arrays(problem, spec)
    shared = "y" in arrays and problem.y.shape[0] == 1 and problem.head.rows > 1
    memory = _TEMPORARY + 4 * sum(array.dtype.itemsize for array in arrays.values())
    grid = tiles.tiling(problem.head.rows, problem.head.columns, "logits_backward", tile=memory)
    known = tiles.known_of(problem, rows)
    masked = shared or problem.live is not None or problem.count is not None

    def kernel(i: Any, j: Any, count: Any, refs: Mapping[str, Any]) -> None:
        # Gradients of one y of all rows are summed in scratch, all others are written where they are found.
        found = {name: refs["sum of y" if name == "y" and shared else f"d{name}"] for name in arrays}
        if shared:
            pl.when(i == 0)(lambda: tiles.zero(found["y"]))

        def pull() -> None:
            here = tiles.unpack(refs["known"], known)
            for name, value in _pull(refs, arrays, here, spec, grid.columns(j)).items():
                if masked:
                    value = jnp.where(tiles.alive(here, grid, i, count), value, 0)
                if name == "y" and shared:
                    found[name][...] += value.sum(0, keepdims=True)
                else:
                    found[name][...] = value.astype(found[name].dtype)

        def store_shared() -> None:
            refs["dy"][...] = found["y"][...].astype(refs["dy"].dtype)

        written = [ref for name, ref in found.items() if not (name == "y" and shared)]
        tiles.either(i * grid.bn < count, lambda inside: pull() if inside else tiles.zero(*written))
        if shared:
            pl.when(i == grid.row_blocks - 1)(store_shared)

    inputs = _operands(arrays, grid)
    found = tiles.call(
        kernel,
        grid,
        problem,
        inputs | {"known": tiles.pack(known, grid)},
        {f"d{name}": operand for name, operand in inputs.items()},
        {"sum of y": ((1, grid.bv), jnp.float32)} if shared else {},
        by_rows=not shared,
        interpret=interpret,
        name="gradient_of_logits",
    )
    other, y = problem.other, problem.y
    return Problem(
        Head(logits=found["dlogits"]),
        other=None if other is None else Head(logits=found.get("dother", jnp.zeros_like(other.logits))),
        y=None if y is None else found.get("dy", jnp.zeros_like(y)),
    )


def _pull(
    refs: Mapping[str, Any], arrays: Mapping[str, Any], known: tiles.Known, spec: core.Spec, columns: jax.Array
) -> dict[str, jax.Array]:
    """Gradients of the tiles of the arrays, before soft-cap and temperature."""
    raw, tile = _load(refs, arrays, spec)
    dz, dy, dother = known.dlogits(tile["logits"], spec, columns=columns, y=tile.get("y"), other=tile.get("other"))
    found: dict[str, Any] = {"logits": dz, "y": dy, "other": dother}
    for name in ("logits", "other"):
        if name in raw:
            found[name] = core.transform_gradient(found[name], raw[name], spec.temperature, spec.softcap)
    return {name: found[name] for name in arrays}
