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
    def of(cls, x: jax.Array, w: jax.Array) -> Plan:
        """As few shares as keep the processors busy."""
        size = tiles.sizes()["product"]
        blocks, steps = pl.cdiv(x.shape[0], BLOCK), x.shape[1] // UNIT
        wide = min(size["columns"], w.shape[1])
        count = pl.cdiv(w.shape[1], wide)

        def tiles_in_turn(parts: int) -> int:
            return pl.cdiv(blocks * parts, size["processors"]) * pl.cdiv(count, parts)

        turns = {parts: tiles_in_turn(parts) for parts in range(1, min(count, size["processors"]) + 1)}
        parts = next(parts for parts, taken in turns.items() if taken <= 1.02 * min(turns.values()))
        epilogue = UNIT if wide % size["epilogue"] else size["epilogue"]
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


class _Program(NamedTuple):
    """One program of the grid: its slices of ``x`` and ``w``, in memory and one after the other in shared memory."""

    plan: Plan
    sources: tuple[Any, Any]
    slices: tuple[Any, Any]
    full: Any
    empty: Any

    @property
    def row(self) -> jax.Array:
        """Where its rows begin."""
        return lax.axis_index("block") * BLOCK

    def slot(self, i: jax.Array) -> jax.Array:
        """Where the slices of step ``i`` are kept."""
        return lax.rem(i, jnp.asarray(self.plan.stages, i.dtype))

    def copy(self, first: jax.Array, last: jax.Array) -> None:
        """Brings the slices of all tiles, as room is made for them."""
        plan, (x, w) = self.plan, self.sources

        def step(i: jax.Array, _: Any) -> None:
            slot, steps = self.slot(i), jnp.asarray(plan.steps, i.dtype)
            pl.when(i >= plan.stages)(lambda: plgpu.barrier_wait(self.empty.at[slot]))
            tile, depth = first + lax.div(i, steps), pl.ds(lax.rem(i, steps) * UNIT, UNIT)
            parts = x.at[pl.ds(self.row, BLOCK), depth], w.at[depth, pl.ds(tile * plan.wide, plan.wide)]
            for part, slices in zip(parts, self.slices, strict=True):
                plgpu.copy_gmem_to_smem(part, slices.at[slot], self.full.at[slot])

        lax.fori_loop(0, (last - first) * plan.steps, step, None)

    def product(self, tile: jax.Array) -> jax.Array:
        """The product of the ``tile`` th tile of this program for the rows of this warpgroup."""
        first, last, (x, w) = tile * self.plan.steps, (tile + 1) * self.plan.steps, self.slices
        rows = pl.ds(lax.axis_index("group") * ROWS, ROWS)

        def multiply(total: Any) -> jax.Array:
            def step(i: jax.Array, _: Any) -> None:
                slot = self.slot(i)
                plgpu.barrier_wait(self.full.at[slot])
                plgpu.wgmma(total, x.at[slot, rows], w.at[slot])
                plgpu.wgmma_wait(1)  # the product before this one is done with its slices
                pl.when(i > first)(lambda: plgpu.barrier_arrive(self.empty.at[self.slot(i - 1)]))

            lax.fori_loop(first, last, step, None)
            return total[...]

        raw = pl.run_scoped(multiply, plgpu.WGMMAAccumulatorRef((ROWS, self.plan.wide)))
        plgpu.barrier_arrive(self.empty.at[self.slot(last - 1)])
        return raw


def call(
    plan: Plan, x: jax.Array, w: jax.Array, rest: list, count: Any, make: Callable, out_type: list, **how: Any
) -> list[jax.Array]:
    """Takes ``x @ w`` apart tile by tile; ``how`` is what the kernel needs beside its grid.

    ``make(refs, scratch, row, group)``, of the arrays ``rest`` and the results, the scratch of ``how``, and where the
    rows of a warpgroup begin, gives its :class:`Task`.
    """

    def body(x_ref: Any, w_ref: Any, count_ref: Any, *refs: Any, scratch: Any, **shared: Any) -> None:
        program = _Program(plan, (x_ref, w_ref), **shared)
        (first, last), group = plan.share(), lax.axis_index("group")
        counts, multiplies = program.row < count_ref[0], group < GROUPS

        def task() -> Task:
            return make(refs, scratch, program.row + group * ROWS, group)

        @pl.when(counts & ~multiplies)
        def _() -> None:
            plgpu.set_max_registers(24, action="decrease")
            program.copy(first, last)

        @pl.when(counts & multiplies)
        def _() -> None:
            plgpu.set_max_registers(240, action="increase")
            start, step, finish, _ = task()
            finish(lax.fori_loop(first, last, lambda i, carry: step(i, program.product(i - first), carry), start))

        @pl.when(~counts & multiplies)
        def _() -> None:
            _, _, finish, skip = task()
            if skip is not None:
                finish(lax.fori_loop(first, last, skip, None))

    scratch = {
        "slices": (
            plgpu.SMEM((plan.stages, BLOCK, UNIT), x.dtype, transforms=ARRANGED),
            plgpu.SMEM((plan.stages, UNIT, plan.wide), w.dtype, transforms=ARRANGED),
        ),
        "full": plgpu.Barrier(num_arrivals=2, num_barriers=plan.stages),
        "empty": plgpu.Barrier(num_arrivals=GROUPS, num_barriers=plan.stages),
        "scratch": how.pop("scratch", ()),
    }
    grid: Any = {"grid": (plan.parts, plan.blocks), "grid_names": ("part", "block")}
    threads: Any = {"num_threads": GROUPS + 1, "thread_name": "group"}
    kernel = plgpu.kernel(body, out_type=out_type, scratch_types=scratch, **grid, **threads, **how)
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
