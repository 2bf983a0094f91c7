"""What the TPU kernels share: block sizes, grids over rows and vocabulary, numbers of rows packed side by side."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from rlx_kernels import core, gradients
from rlx_kernels.problem import Problem, vary

SUMS = core.SWEPT
MIB = 1 << 20
_PACKED = 128  # lanes of a register: a lone column [N, 1] takes as much memory as this many
_FEWEST = (16, 128)  # rows and columns of the smallest block that every type allows


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads((pathlib.Path(__file__).parent / "sizes" / "tpu.json").read_text(encoding="utf-8"))["devices"]


def sizes() -> Mapping[str, Any]:
    """Block sizes of the device that is traced for, those of the smallest memory if it is unknown."""
    described = jax.sharding.get_abstract_mesh().abstract_device
    kind = jax.devices()[0].device_kind if described is None else described.device_kind
    return _table().get(kind, _table()["other"])


class Tiling(NamedTuple):
    """A grid over ``n`` rows and ``v`` columns in blocks of ``bn`` and ``bv``; the last ones may stick out."""

    n: int
    v: int
    bn: int
    bv: int
    vmem_mib: int

    @property
    def row_blocks(self) -> int:
        """Blocks of rows."""
        return pl.cdiv(self.n, self.bn)

    @property
    def column_blocks(self) -> int:
        """Blocks of columns."""
        return pl.cdiv(self.v, self.bv)

    @property
    def ragged(self) -> bool:
        """Whether the last block of columns sticks out."""
        return self.v % self.bv != 0

    def columns(self, j: Any) -> jax.Array:
        """Token ids of block ``j``, counted in this shard."""
        return j * self.bv + jax.lax.broadcasted_iota(jnp.int32, (self.bn, self.bv), 1)

    def row_ids(self, i: Any) -> jax.Array:
        """Row numbers ``[bn, 1]`` of block ``i``."""
        return i * self.bn + jax.lax.broadcasted_iota(jnp.int32, (self.bn, 1), 0)


def tiling(n: int, v: int, kernel: str, *, tile: int, row: int = 0, column: int = 0) -> Tiling:
    """The blocks of ``kernel`` in the table of sizes, their longer side halved until they fit into a core.

    ``tile``, ``row`` and ``column`` are the bytes that each element, row and column of a block takes there.

    Raises:
        NotImplementedError: the smallest block does not fit.
    """
    size = sizes()
    wanted = zip(size[kernel], (n, v), _FEWEST, strict=True)
    bn, bv = (min(block, pl.cdiv(length, fewest) * fewest) for block, length, fewest in wanted)

    def mib() -> int:
        return pl.cdiv(bn * bv * tile + bn * (row + 4 * _PACKED * len(SUMS)) + bv * column, MIB)

    while mib() > size["vmem_mib"]:
        if bv > _FEWEST[1] and (bv >= bn or bn <= _FEWEST[0]):
            bv = max(bv // 2 // _FEWEST[1], 1) * _FEWEST[1]
        elif bn > _FEWEST[0]:
            bn = max(bn // 2 // _FEWEST[0], 1) * _FEWEST[0]
        else:
            reason = f"tpu kernels need {mib()} MiB of VMEM for a block of {bn} rows and {bv} tokens"
            raise NotImplementedError(f"{reason}, {size['vmem_mib']} are there")
    return Tiling(n, v, bn, bv, size["vmem_mib"])


class Operand(NamedTuple):
    """An array and the block of it that a step of the grid sees: ``index(i, j)`` of block row and block column."""

    array: Any  # or the shape and type of a result
    block: tuple[int, int]
    index: Callable[[Any, Any], tuple[Any, Any]]


def call(
    kernel: Callable[..., None],
    grid: Tiling,
    problem: Problem,
    inputs: Mapping[str, Operand],
    outputs: Mapping[str, Operand],
    scratch: Mapping[str, tuple[tuple[int, int], Any]],
    *,
    by_rows: bool,
    interpret: Any,
    name: str,
) -> dict[str, jax.Array]:
    """Runs ``kernel(i, j, count, refs)`` over the grid, row blocks in the outer loop or else in the inner one.

    ``refs`` are the blocks of all inputs and outputs and the scratch, by name. Blocks of rows from the ``count`` of the
    problem on are not fetched: they see other rows.
    """
    names = [*inputs, *outputs, *scratch]

    def block(a: Any, b: Any) -> tuple[Any, Any]:
        return (a, b) if by_rows else (b, a)

    def body(limits: Any, *refs: Any) -> None:
        i, j = block(pl.program_id(0), pl.program_id(1))
        kernel(i, j, limits[0], dict(zip(names, refs, strict=True)))

    def fetched(operand: Operand) -> pl.BlockSpec:
        def index(a: Any, b: Any, limits: Any) -> tuple[Any, Any]:
            i, j = block(a, b)
            j = jnp.where(i <= limits[1], j, grid.column_blocks - 1) if by_rows else j
            return operand.index(jnp.minimum(i, limits[1]), j)

        return pl.BlockSpec(operand.block, index)

    def written(operand: Operand) -> pl.BlockSpec:
        return pl.BlockSpec(operand.block, lambda a, b, _: operand.index(*block(a, b)))

    count = jnp.asarray(grid.n if problem.count is None else problem.count, jnp.int32)
    limits = jnp.stack([count, jnp.maximum(count - 1, 0) // grid.bn])
    arrays = [operand.array for operand in inputs.values()]
    varying = jax.typeof(vary(limits, *arrays)).manual_axis_type
    found = pl.pallas_call(
        body,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=block(grid.row_blocks, grid.column_blocks),
            in_specs=[fetched(operand) for operand in inputs.values()],
            out_specs=[written(operand) for operand in outputs.values()],
            scratch_shapes=[pltpu.VMEM(shape, dtype) for shape, dtype in scratch.values()],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(operand.array.shape, operand.array.dtype, manual_axis_type=varying)
            for operand in outputs.values()
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=grid.vmem_mib * MIB
        ),
        interpret=False if interpret is None else interpret,
        name=name,
    )(limits, *arrays)
    return dict(zip(outputs, found, strict=True))


def either(condition: Any, step: Callable[[bool], None]) -> None:
    """``step(True)`` where the condition holds, else ``step(False)``; a plain bool compiles only one of them."""
    if isinstance(condition, bool):
        step(condition)
        return
    pl.when(condition)(lambda: step(True))
    pl.when(jnp.logical_not(condition))(lambda: step(False))


def zero(*refs: Any) -> None:
    """Fills with zeros."""
    for ref in refs:
        ref[...] = jnp.zeros(ref.shape, ref.dtype)


# Sums, from scratch columns to one packed array.


def scratch_of(names: list[str], grid: Tiling) -> dict[str, tuple[tuple[int, int], Any]]:
    """Columns that keep the sums of a block of rows during its sweep."""
    return {f"sum {name}": ((grid.bn, 1), jnp.int32 if name == "top" else jnp.float32) for name in names}


def clear(names: list[str], refs: Mapping[str, Any]) -> None:
    """The sums of no tokens."""
    for name in names:
        ref = refs[f"sum {name}"]
        ref[...] = jnp.full(ref.shape, core.LOWEST if name in ("m", "m2") else 0, ref.dtype)


def add(names: list[str], refs: Mapping[str, Any], tile: core.Sums, spec: core.Spec) -> None:
    """Merges the sums of a tile into those of the tiles before it."""
    before = core.Sums(**{name: refs[f"sum {name}"][...] for name in names})
    after = core.merge(before, tile, spec)
    for name in names:
        refs[f"sum {name}"][...] = getattr(after, name)


def store(names: list[str], refs: Mapping[str, Any], out: Any) -> None:
    """Writes the sums side by side."""
    lane = jax.lax.broadcasted_iota(jnp.int32, out.shape, 1)
    packed = jnp.zeros(out.shape, jnp.float32)
    for k, name in enumerate(names):
        packed = jnp.where(lane == k, refs[f"sum {name}"][...].astype(jnp.float32), packed)
    out[...] = packed


def packed_sums(grid: Tiling) -> Operand:
    """Where :func:`store` writes to."""
    shape = jax.ShapeDtypeStruct((grid.n, _PACKED), jnp.float32)
    return Operand(shape, (grid.bn, _PACKED), lambda i, j: (i, 0))


def sums_of(packed: jax.Array, names: list[str], problem: Problem) -> core.Sums:
    """The sums ``[N, 1]`` that were packed; ``top`` counts in the whole vocabulary."""
    found: dict[str, Any] = {name: packed[:, k : k + 1] for k, name in enumerate(names)}
    if "top" in found:
        found["top"] = found["top"].astype(jnp.int32) + offset_of(problem)
    return core.Sums(**found)


# What the way back knows of each row.


class Known(NamedTuple):
    """Numbers ``[N, 1]`` of each row, token ids counted in this shard and -1 outside of it."""

    rows: gradients.Gradient
    targets: Any = None
    live: Any = None

    def dlogits(self, z: jax.Array, spec: core.Spec, **tile: Any) -> tuple[jax.Array, Any, Any]:
        """:func:`rlx_kernels.gradients.dlogits` of a tile."""
        return gradients.dlogits(z, self.rows, spec, targets=self.targets, **tile)


def known_of(problem: Problem, rows: gradients.Gradient) -> Known:
    """The rows of a problem on its way back."""
    top = None if rows.top is None else local(problem, rows.top_index)
    targets = None if rows.target is None else local(problem, problem.targets)
    return Known(rows._replace(top_index=top), targets, problem.live)


def offset_of(problem: Problem) -> Any:
    """Where this shard of the vocabulary begins."""
    return 0 if problem.offset is None else problem.offset


def local(problem: Problem, tokens: Any) -> jax.Array:
    """Token ids counted in this shard, -1 for those outside of it."""
    tokens = tokens.astype(jnp.int32) - offset_of(problem)
    return jnp.where((tokens >= 0) & (tokens < problem.head.columns), tokens, -1)


def pack(known: Known, grid: Tiling) -> Operand:
    """All numbers of a row side by side: exact also for token ids, which are below ``2^24``."""
    columns = jnp.concatenate([leaf.astype(jnp.float32) for leaf in jax.tree.leaves(known)], 1)
    columns = jnp.pad(columns, ((0, 0), (0, _PACKED - columns.shape[1])))
    return Operand(columns, (grid.bn, _PACKED), lambda i, j: (i, 0))


def unpack(ref: Any, known: Known) -> Known:
    """A block of what :func:`pack` packed."""
    leaves, tree = jax.tree.flatten(known._replace(live=None))
    found = [ref[:, k : k + 1].astype(leaf.dtype) for k, leaf in enumerate(leaves)]
    live = None if known.live is None else ref[:, len(leaves) : len(leaves) + 1]
    return jax.tree.unflatten(tree, found)._replace(live=live)


def alive(known: Known, grid: Tiling, i: Any, count: Any) -> jax.Array:
    """Rows ``[bn, 1]`` of block ``i`` that get a gradient."""
    inside = grid.row_ids(i) < count
    return inside if known.live is None else inside & (known.live > 0)
