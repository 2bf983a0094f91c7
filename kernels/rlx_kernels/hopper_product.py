"""Mosaic GPU kernels for Hopper: statistics of ``x @ w``, whose logits exist only in registers.

A program of three warpgroups owns 128 rows and a share of the vocabulary. One warpgroup copies slices of ``x`` and
``w`` to shared memory, the two others multiply 64 rows each and take the product apart while the next slices arrive.
Rows are the fastest axis of the grid, so the programs that run together read the same columns of ``w``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from rlx_kernels import core, gradients
from rlx_kernels import hopper_tiles as tiles
from rlx_kernels.problem import Head, Problem, zeros_like

_ROWS, _GROUPS = 64, 2  # rows of a warpgroup's product, warpgroups that multiply
_BLOCK = _ROWS * _GROUPS
_UNIT = 64  # bfloat16 numbers in the 128 bytes that a copy arranges for the tensor cores
_TILE = plgpu.Layout.WGMMA
_ROW = _TILE.reduce(1)
_LANES = tiles.lanes(_TILE)


class _Plan(NamedTuple):
    """How ``x [N, D] @ w [D, V]`` is cut: tiles of ``wide`` columns, ``count`` of them in ``parts`` shares."""

    blocks: int
    steps: int
    wide: int
    count: int
    parts: int
    stages: int
    epilogue: int

    @classmethod
    def of(cls, x: jax.Array, w: jax.Array) -> _Plan:
        """Shares that leave the fewest processors idle."""
        size = tiles.sizes()["product"]
        blocks, steps = pl.cdiv(x.shape[0], _BLOCK), x.shape[1] // _UNIT
        wide = min(size["columns"], w.shape[1])
        count = pl.cdiv(w.shape[1], wide)

        def tiles_in_turn(parts: int) -> int:
            return pl.cdiv(blocks * parts, size["processors"]) * pl.cdiv(count, parts)

        parts = min(range(1, min(count, size["processors"]) + 1), key=tiles_in_turn)
        return cls(blocks, steps, wide, count, parts, size["stages"], min(size["epilogue"], wide))

    def share(self) -> tuple[jax.Array, jax.Array]:
        """First and last tile of this program."""
        part = lax.axis_index("part")
        return part * self.count // self.parts, (part + 1) * self.count // self.parts


def _padded(array: jax.Array, *multiples: int) -> jax.Array:
    """``array`` with zeros up to multiples of these sizes; a copy only where some are missing."""
    missing = [-size % multiple for size, multiple in zip(array.shape, multiples, strict=True)]
    return jnp.pad(array, [(0, more) for more in missing]) if any(missing) else array


def _check(problem: Problem) -> None:
    head = problem.head
    if {str(head.x.dtype), str(head.w.dtype)} != {"bfloat16"}:
        raise NotImplementedError(f"hopper kernels multiply bfloat16, not {head.x.dtype} by {head.w.dtype}")
    if problem.y is not None or problem.other is not None:
        raise NotImplementedError("hopper kernels take y and another policy with given logits only")


def _call(
    plan: _Plan, x: jax.Array, w: jax.Array, rest: list[jax.Array], count: Any, tile: Callable, out_type: list, **how: Any
) -> list[jax.Array]:
    """Runs ``tile`` on every tile of ``x @ w``; ``how`` is what the kernel needs beside its grid.

    ``tile(refs)`` of the arrays ``rest``, the results and the scratch gives ``(start, step, finish)``: what a
    warpgroup carries, ``step(i, raw, carry)`` for the product of tile ``i``, and what it does with the last carry.
    """

    def body(x_ref: Any, w_ref: Any, count_ref: Any, *refs: Any, slices: Any, full: Any, empty: Any, scratch: Any) -> None:
        first, last = plan.share()
        row, group = lax.axis_index("block") * _BLOCK, lax.axis_index("group")
        x_slices, w_slices = slices

        def slot(i: jax.Array) -> jax.Array:
            return lax.rem(i, jnp.asarray(plan.stages, i.dtype))

        def copy(i: jax.Array, _: Any) -> None:
            pl.when(i >= plan.stages)(lambda: plgpu.barrier_wait(empty.at[slot(i)]))
            j, k = lax.div(i, jnp.asarray(plan.steps, i.dtype)), lax.rem(i, jnp.asarray(plan.steps, i.dtype))
            depth = pl.ds(k * _UNIT, _UNIT)
            for source, target in (
                (x_ref.at[pl.ds(row, _BLOCK), depth], x_slices),
                (w_ref.at[depth, pl.ds((first + j) * plan.wide, plan.wide)], w_slices),
            ):
                plgpu.copy_gmem_to_smem(source, target.at[slot(i)], full.at[slot(i)])

        def multiply(acc: Any, start: jax.Array) -> jax.Array:
            def step(k: jax.Array, _: Any) -> None:
                i = start + k
                plgpu.barrier_wait(full.at[slot(i)])
                plgpu.wgmma(acc, x_slices.at[slot(i), pl.ds(group * _ROWS, _ROWS)], w_slices.at[slot(i)])
                plgpu.wgmma_wait(1)  # the product before this one is done with its slices
                pl.when(k > 0)(lambda: plgpu.barrier_arrive(empty.at[slot(i - 1)]))

            lax.fori_loop(0, plan.steps, step, None)
            return acc[...]

        def take_apart(step: Callable) -> Callable:
            def one(j: jax.Array, carry: Any) -> Any:
                start = (j - first) * plan.steps
                raw = pl.run_scoped(lambda acc: multiply(acc, start), plgpu.ACC((_ROWS, plan.wide), jnp.float32))
                plgpu.barrier_arrive(empty.at[slot(start + plan.steps - 1)])
                return step(j, raw, carry)

            return one

        @pl.when((row < count_ref[0]) & (group == _GROUPS))
        def _() -> None:
            plgpu.set_max_registers(40, action="decrease")
            lax.fori_loop(0, (last - first) * plan.steps, copy, None)

        @pl.when((row < count_ref[0]) & (group < _GROUPS))
        def _() -> None:
            plgpu.set_max_registers(232, action="increase")
            start, step, finish = tile(refs, scratch, row + group * _ROWS, group)
            finish(lax.fori_loop(first, last, take_apart(step), start))

    arranged = (plgpu.TilingTransform((8, _UNIT)), plgpu.SwizzleTransform(128))
    slices = (
        plgpu.SMEM((plan.stages, _BLOCK, _UNIT), x.dtype, transforms=arranged),
        plgpu.SMEM((plan.stages, _UNIT, plan.wide), w.dtype, transforms=arranged),
    )
    scratch = how.pop("scratch", ())
    kernel = plgpu.kernel(
        body,
        out_type=out_type,
        scratch_types={
            "slices": slices,
            "full": plgpu.Barrier(num_arrivals=2, num_barriers=plan.stages),
            "empty": plgpu.Barrier(num_arrivals=_GROUPS, num_barriers=plan.stages),
            "scratch": scratch,
        },
        grid=(plan.parts, plan.blocks),
        grid_names=("part", "block"),
        num_threads=_GROUPS + 1,
        thread_name="group",
        **how,
    )
    count = jnp.reshape(jnp.asarray(x.shape[0] if count is None else count, jnp.int32), (1,))
    return kernel(x, w, count, *rest)


def _pieces(plan: _Plan) -> range:
    """Where the pieces of a tile begin that are looked at one after the other, as registers are few."""
    return range(0, plan.wide, plan.epilogue)


def _piece(plan: _Plan, raw: jax.Array, at: int, bias: Any, first: jax.Array, vocabulary: int, spec: core.Spec) -> Any:
    """Raw and transformed logits of a piece of a tile, -inf beyond the vocabulary, and the token ids."""
    part = raw[:, at : at + plan.epilogue]
    if bias is not None:
        numbers = tiles.load(bias.at[pl.ds(first + at, plan.epilogue)], _TILE.reduce(0)).astype(jnp.float32)
        part = part + plgpu.layout_cast(lax.broadcast_in_dim(numbers, part.shape, (1,)), _TILE)
    columns = tiles.columns(first + at, part, _TILE)
    z = core.transform(part, spec.temperature, spec.softcap)
    return part, jnp.where(columns < vocabulary, z, -jnp.inf) if vocabulary % plan.wide else z, columns


def forward(problem: Problem, spec: core.Spec, *, interpret: Any = None) -> core.Sums:
    """Sums of every row, fields ``[N, 1]``."""
    _check(problem)
    head, vocabulary = problem.head, problem.head.columns
    x, w = _padded(head.x, 8, _UNIT), _padded(head.w, _UNIT, _UNIT)
    plan = _Plan.of(x, w)
    names = [name for name in tiles.SUMS if name in ("m", "s") or spec.needs(name)]
    arrays = _arrays(plan, head.bias, {"targets": (problem.targets - problem.offset)[:, 0]} if "t" in names else {})

    def tile(refs: Any, scratch: Any, row: jax.Array, group: jax.Array) -> Any:
        sources, outs = dict(zip(arrays, refs, strict=False)), refs[len(arrays) :]

        def step(i: jax.Array, raw: jax.Array, found: core.Sums) -> core.Sums:
            targets = None if "t" not in names else tiles.load(sources["targets"].at[pl.ds(row, _ROWS)], _ROW)
            for at in _pieces(plan):
                _, z, columns = _piece(plan, raw, at, sources.get("bias"), i * plan.wide, vocabulary, spec)
                added = core.sums(z, spec, columns=columns, targets=targets, lanes=_LANES)
                found = core.merge(found, added, spec)
            return found

        def finish(found: core.Sums) -> None:
            for name, out in zip(names, outs, strict=True):
                tiles.store(out.at[lax.axis_index("part"), pl.ds(row, _ROWS)], getattr(found, name))

        return tiles.no_sums(names, _ROWS, _ROW), step, finish

    out_type = [jax.ShapeDtypeStruct((plan.parts, plan.blocks * _BLOCK), tiles.dtype_of(name)) for name in names]
    how = {"compiler_params": tiles.params(spec), "interpret": interpret}
    parts = _call(plan, x, w, list(arrays.values()), problem.count, tile, out_type, **how)
    found = tiles.merge_parts(parts, names, head.rows, spec)
    return found if found.top is None else found._replace(top=found.top + problem.offset)


def _arrays(plan: _Plan, bias: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Rows and bias up to whole blocks and tiles, as kernels read them without a look at their end."""
    arrays = {name: _padded(row, plan.blocks * _BLOCK) for name, row in rows.items()}
    return arrays if bias is None else arrays | {"bias": _padded(bias, plan.count * plan.wide)}


def backward(problem: Problem, rows: gradients.Gradient, spec: core.Spec, *, interpret: Any = None) -> Problem:
    """Gradients with respect to ``x``, ``w`` and ``bias``."""
    raise NotImplementedError
