"""A Mosaic GPU kernel for Hopper around a product ``x @ w`` that exists only in registers, tile by tile.

A program of three warpgroups owns 128 rows and a share of the vocabulary. One warpgroup copies slices of ``x`` and
``w`` to shared memory, the two others multiply 64 rows each and take the product apart while the next slices arrive.
Rows are the fastest axis of the grid, so the programs that run together read the same columns of ``w``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from rlx_kernels import core
from rlx_kernels import hopper_tiles as tiles

ROWS, GROUPS = 64, 2  # rows of a warpgroup's product, warpgroups that multiply
BLOCK = ROWS * GROUPS
UNIT = 64  # bfloat16 numbers in the 128 bytes that a copy arranges for the tensor cores
ARRANGED = (plgpu.TilingTransform((8, UNIT)), plgpu.SwizzleTransform(128))
TILE = plgpu.Layout.WGMMA


class Plan(NamedTuple):
    """How ``x [N, D] @ w [D, V]`` is cut: tiles of ``wide`` columns, ``count`` of them in ``parts`` shares."""

    blocks: int
    steps: int
    wide: int
    count: int
    parts: int
    stages: int
    epilogue: int

    @classmethod
    def of(cls, x: jax.Array, w: jax.Array, bias: jax.Array | None) -> Plan:
        """As few shares as keep the processors busy, pieces that fit in registers: beside a bias smaller ones."""
        size = tiles.sizes()["product"]
        blocks, steps = pl.cdiv(x.shape[0], BLOCK), x.shape[1] // UNIT
        wide = min(size["columns"], w.shape[1])
        count = pl.cdiv(w.shape[1], wide)

        def tiles_in_turn(parts: int) -> int:
            return pl.cdiv(blocks * parts, size["processors"]) * pl.cdiv(count, parts)

        turns = {parts: tiles_in_turn(parts) for parts in range(1, min(count, size["processors"]) + 1)}
        parts = next(parts for parts, taken in turns.items() if taken <= 1.02 * min(turns.values()))
        epilogue = size["epilogue"] if bias is None and wide % size["epilogue"] == 0 else UNIT
        return cls(blocks, steps, wide, count, parts, size["stages"], epilogue)

    def share(self) -> tuple[jax.Array, jax.Array]:
        """First and last tile of this program."""
        part = lax.axis_index("part")
        return part * self.count // self.parts, (part + 1) * self.count // self.parts


class Task(NamedTuple):
    """What a warpgroup does: ``step(i, raw, carry)`` with the product of tile ``i``, from ``start``, then ``finish``.

    ``skip(i, None)`` is for tiles of rows that do not count.
    """

    start: Any
    step: Callable
    finish: Callable
    skip: Callable | None = None


def padded(array: jax.Array, *multiples: int) -> jax.Array:
    """``array`` with zeros up to multiples of these sizes; a copy only where some are missing."""
    missing = [-size % multiple for size, multiple in zip(array.shape, multiples, strict=True)]
    return jnp.pad(array, [(0, more) for more in missing]) if any(missing) else array


def call(
    plan: Plan,
    x: jax.Array,
    w: jax.Array,
    rest: list[jax.Array],
    count: Any,
    make: Callable,
    out_type: list,
    **how: Any,
) -> list[jax.Array]:
    """Takes ``x @ w`` apart tile by tile; ``how`` is what the kernel needs beside its grid.

    ``make(refs, scratch, row, group)``, of the arrays ``rest`` and the results, the scratch of ``how``, and where the
    rows of a warpgroup begin, gives its :class:`Task`.
    """

    def body(
        x_ref: Any, w_ref: Any, count_ref: Any, *refs: Any, slices: Any, full: Any, empty: Any, scratch: Any
    ) -> None:
        first, last = plan.share()
        row, group = lax.axis_index("block") * BLOCK, lax.axis_index("group")
        x_slices, w_slices = slices

        def slot(i: jax.Array) -> jax.Array:
            return lax.rem(i, jnp.asarray(plan.stages, i.dtype))

        def copy(i: jax.Array, _: Any) -> None:
            pl.when(i >= plan.stages)(lambda: plgpu.barrier_wait(empty.at[slot(i)]))
            j, k = lax.div(i, jnp.asarray(plan.steps, i.dtype)), lax.rem(i, jnp.asarray(plan.steps, i.dtype))
            depth = pl.ds(k * UNIT, UNIT)
            for source, target in (
                (x_ref.at[pl.ds(row, BLOCK), depth], x_slices),
                (w_ref.at[depth, pl.ds((first + j) * plan.wide, plan.wide)], w_slices),
            ):
                plgpu.copy_gmem_to_smem(source, target.at[slot(i)], full.at[slot(i)])

        def multiply(acc: Any, start: jax.Array) -> jax.Array:
            def step(k: jax.Array, _: Any) -> None:
                i = start + k
                plgpu.barrier_wait(full.at[slot(i)])
                plgpu.wgmma(acc, x_slices.at[slot(i), pl.ds(group * ROWS, ROWS)], w_slices.at[slot(i)])
                plgpu.wgmma_wait(1)  # the product before this one is done with its slices
                pl.when(k > 0)(lambda: plgpu.barrier_arrive(empty.at[slot(i - 1)]))

            lax.fori_loop(0, plan.steps, step, None)
            return acc[...]

        def take_apart(step: Callable) -> Callable:
            def one(j: jax.Array, carry: Any) -> Any:
                start = (j - first) * plan.steps
                raw = pl.run_scoped(lambda acc: multiply(acc, start), plgpu.ACC((ROWS, plan.wide), jnp.float32))
                plgpu.barrier_arrive(empty.at[slot(start + plan.steps - 1)])
                return step(j, raw, carry)

            return one

        @pl.when((row < count_ref[0]) & (group == GROUPS))
        def _() -> None:
            plgpu.set_max_registers(40, action="decrease")
            lax.fori_loop(0, (last - first) * plan.steps, copy, None)

        @pl.when((row < count_ref[0]) & (group < GROUPS))
        def _() -> None:
            plgpu.set_max_registers(232, action="increase")
            task = make(refs, scratch, row + group * ROWS, group)
            task.finish(lax.fori_loop(first, last, take_apart(task.step), task.start))

        @pl.when((row >= count_ref[0]) & (group < GROUPS))
        def _() -> None:
            task = make(refs, scratch, row + group * ROWS, group)
            if task.skip is not None:
                task.finish(lax.fori_loop(first, last, task.skip, None))

    slices = (
        plgpu.SMEM((plan.stages, BLOCK, UNIT), x.dtype, transforms=ARRANGED),
        plgpu.SMEM((plan.stages, UNIT, plan.wide), w.dtype, transforms=ARRANGED),
    )
    scratch = how.pop("scratch", ())
    kernel = plgpu.kernel(
        body,
        out_type=out_type,
        scratch_types={
            "slices": slices,
            "full": plgpu.Barrier(num_arrivals=2, num_barriers=plan.stages),
            "empty": plgpu.Barrier(num_arrivals=GROUPS, num_barriers=plan.stages),
            "scratch": scratch,
        },
        grid=(plan.parts, plan.blocks),
        grid_names=("part", "block"),
        num_threads=GROUPS + 1,
        thread_name="group",
        **how,
    )
    count = jnp.reshape(jnp.asarray(x.shape[0] if count is None else count, jnp.int32), (1,))
    return kernel(x, w, count, *rest)


class Piece(NamedTuple):
    """Columns of a tile that are looked at together: from ``first`` on, ``columns`` counted from there."""

    first: jax.Array
    columns: jax.Array
    raw: jax.Array
    z: jax.Array


def pieces(plan: Plan, tile: jax.Array, raw: jax.Array, bias: Any, vocabulary: int, spec: core.Spec) -> Iterator[Piece]:
    """The pieces of a tile one after the other, as registers are few; logits beyond the vocabulary are -inf.

    All pieces share their ``columns``: rows are counted from ``first`` instead, of which a thread has two.
    """
    for at in range(0, plan.wide, plan.epilogue):
        first, part = tile * plan.wide + at, raw[:, at : at + plan.epilogue]
        if bias is not None:
            numbers = tiles.load(bias.at[pl.ds(first, plan.epilogue)], TILE.reduce(0)).astype(jnp.float32)
            part = part + plgpu.layout_cast(lax.broadcast_in_dim(numbers, part.shape, (1,)), TILE)
        columns, z = tiles.columns(0, part, TILE), core.transform(part, spec.temperature, spec.softcap)
        if vocabulary % plan.wide:
            z = jnp.where(columns < vocabulary - first, z, -jnp.inf)
        yield Piece(first, columns, part, z)
