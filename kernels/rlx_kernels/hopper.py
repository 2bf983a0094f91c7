"""Mosaic GPU kernels for Hopper and newer: statistics of given logits, and the choice of the kernels for a head.

A block of 4 rows belongs to 128 threads, a row to each warp. Tiles come from global memory straight into registers,
16 bytes a thread where the vocabulary allows; the last tile begins early enough to end with the vocabulary and masks
the tokens that the tile before it had, so nothing is read or written beyond an array.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from rlx_kernels import core, gradients, hopper_head
from rlx_kernels import hopper_tiles as tiles
from rlx_kernels.problem import Head, Problem
from rlx_kernels.rows import target_logit

_ROWS = 4
_DTYPES = ("bfloat16", "float16", "float32")


def forward(problem: Problem, spec: core.Spec, *, interpret: Any = None) -> core.Sums:
    """Sums of every row over this shard of the vocabulary; fields ``[N, 1]``."""
    _check(problem, spec)
    if problem.head.logits is None:
        return hopper_head.forward(problem, spec, interpret=interpret)
    return _forward(problem, spec, interpret)


def backward(problem: Problem, rows: gradients.Gradient, spec: core.Spec, *, interpret: Any = None) -> Problem:
    """Gradients with respect to the arrays of ``problem``."""
    _check(problem, spec)
    if problem.head.logits is None:
        return hopper_head.backward(problem, rows, spec, interpret=interpret)
    return _backward(problem, rows, spec, interpret)


def _check(problem: Problem, spec: core.Spec) -> None:
    """Declines what these kernels do not do."""
    head, other, y = problem.head, problem.other, problem.y
    whole = [name for name in spec.statistics if name in core.WHOLE_ROW]
    reasons = {
        f"hopper kernels sweep a row once: no {', '.join(whole)}": bool(whole),
        "hopper kernels need a temperature that is a number": problem.temperature is not None,
        f"hopper kernels need {', '.join(_DTYPES)} rows, not {head.dtype}": str(head.dtype) not in _DTYPES,
        "hopper kernels need y [N, V], not one row": y is not None and y.shape[0] != head.rows,
        "hopper kernels need the other policy as logits": other is not None and other.logits is None,
    }
    for reason, holds in reasons.items():
        if holds:
            raise NotImplementedError(reason)
    _check_device(product=head.logits is None)
    if head.logits is not None and (head.rows < _ROWS or head.columns < 32):
        raise NotImplementedError(f"hopper kernels need {_ROWS} rows and 32 tokens, not {head.rows} and {head.columns}")


def _check_device(product: bool) -> None:
    """Declines GPUs that lack the instructions; a process without a GPU interprets, or lowers for one elsewhere."""
    if jax.default_backend() != "gpu":
        return
    device = jax.devices()[0]
    version = str(getattr(device, "compute_capability", ""))
    major = int(version.split(".")[0]) if version.replace(".", "").isdigit() else 0
    if major < 9 or (product and major > 9):
        wanted = "9.x for a product" if product else "9.0 or more"
        raise NotImplementedError(f"hopper kernels need compute capability {wanted}, not {device.device_kind}")


class _Plan:
    """How logits are cut: ``wide`` columns a tile, ``count`` tiles in ``parts`` shares, ``layout`` of a tile."""

    def __init__(self, arrays: list[jax.Array], spec: core.Spec):
        self.params = tiles.params(spec)
        self.n, self.v = arrays[0].shape
        vector = 16 // max(array.dtype.itemsize for array in arrays)
        while self.v % vector or self.v < 32 * vector:
            vector //= 2
        unit, size = 32 * vector, tiles.sizes()["logits"]
        self.wide = min(max(size["columns"] // len(arrays), unit), self.v) // unit * unit
        self.count = pl.cdiv(self.v, self.wide)
        self.blocks = pl.cdiv(self.n, _ROWS)
        self.parts = min(pl.cdiv(size["blocks"], self.blocks), self.count)
        tiling = plgpu.Tiling(((_ROWS, unit), (vector,)))
        self.layout = plgpu.Layout.TILED(tiling, warp_dims=(-3,), lane_dims=(-2,), vector_dim=-1)

    def first_row(self) -> jax.Array:
        """Where the rows of this program begin; the last ones may be those of two programs."""
        return jnp.minimum(lax.axis_index("block") * _ROWS, self.n - _ROWS)

    def share(self) -> tuple[jax.Array, jax.Array]:
        """First and last tile of this program."""
        part = lax.axis_index("part")
        return part * self.count // self.parts, (part + 1) * self.count // self.parts

    def first_column(self, i: jax.Array) -> jax.Array:
        """Where tile ``i`` begins."""
        return jnp.minimum(i * self.wide, self.v - self.wide)

    def at(self, ref: Any, row: jax.Array, column: jax.Array) -> Any:
        """One tile of ``ref``."""
        return ref.at[pl.ds(row, _ROWS), pl.ds(column, self.wide)]

    def kernel(self, body: Any, out_type: list[jax.ShapeDtypeStruct], interpret: Any) -> Any:
        """``body`` for every block of rows and share of the tiles, where the rows count."""

        def counted(count_ref: Any, *refs: Any) -> None:
            pl.when(lax.axis_index("block") * _ROWS < count_ref[0])(lambda: body(*refs))

        grid: Any = {"grid": (self.parts, self.blocks), "grid_names": ("part", "block")}
        return plgpu.kernel(counted, out_type=out_type, compiler_params=self.params, interpret=interpret, **grid)


def _arrays(problem: Problem) -> dict[str, jax.Array]:
    """The arrays ``[N, V]`` of a problem."""
    found = {"logits": problem.head.logits, "y": problem.y, "other": problem.other and problem.other.logits}
    return {name: array for name, array in found.items() if array is not None}


def _transformed(loaded: dict[str, jax.Array], spec: core.Spec) -> dict[str, jax.Array]:
    """A tile of each array in float32, logits after soft-cap and temperature."""
    wide = {name: tile.astype(jnp.float32) for name, tile in loaded.items()}
    return {k: tile if k == "y" else core.transform(tile, spec.temperature, spec.softcap) for k, tile in wide.items()}


def _count(problem: Problem) -> jax.Array:
    count = problem.head.rows if problem.count is None else problem.count
    return jnp.reshape(jnp.asarray(count, jnp.int32), (1,))


def _forward(problem: Problem, spec: core.Spec, interpret: Any) -> core.Sums:
    arrays = _arrays(problem)
    plan = _Plan(list(arrays.values()), spec)
    names = [name for name in tiles.SUMS if name in ("m", "s") or (name != "t" and spec.needs(name))]
    lanes, row_layout = tiles.lanes(plan.layout), plan.layout.reduce(1)

    def body(*refs: Any) -> None:
        sources, outs = dict(zip(arrays, refs, strict=False)), refs[len(arrays) :]
        row, (first, last) = plan.first_row(), plan.share()

        def fetch(i: jax.Array) -> dict[str, jax.Array]:
            at = plan.first_column(jnp.minimum(i, last - 1))
            return {name: tiles.load(plan.at(ref, row, at), plan.layout) for name, ref in sources.items()}

        def step(i: jax.Array, carry: Any) -> Any:
            found, loaded = carry
            following = fetch(i + 1)  # on its way while this tile is summed
            tile = _transformed(loaded, spec)
            columns = tiles.columns(plan.first_column(i), tile["logits"], plan.layout)

            def fresh(z: jax.Array) -> jax.Array:
                return plgpu.layout_cast(jnp.where(columns >= i * plan.wide, z, -jnp.inf), plan.layout)

            for name in ("logits", "other") if plan.v % plan.wide else ():
                if name in tile:
                    tile[name] = lax.cond(i == plan.count - 1, fresh, lambda z: z, tile[name])
            z, y, other = tile["logits"], tile.get("y"), tile.get("other")
            added = core.sums(z, spec, columns=columns, y=y, other=other, lanes=lanes)
            return core.merge(found, added, spec), following

        start = tiles.no_sums(names, _ROWS, row_layout)
        found, _ = lax.fori_loop(first, last, step, (start, fetch(first)))
        for name, out in zip(names, outs, strict=True):
            tiles.store(out.at[lax.axis_index("part"), pl.ds(row, _ROWS)], getattr(found, name))

    out_type = [jax.ShapeDtypeStruct((plan.parts, plan.n), tiles.dtype_of(name)) for name in names]
    parts = plan.kernel(body, out_type, interpret)(_count(problem), *arrays.values())
    found = tiles.merge_parts(parts, names, plan.n, spec)
    top = None if found.top is None else found.top + problem.offset
    return found._replace(top=top, t=_target_logits(problem, spec) if spec.needs("t") else None)


def _target_logits(problem: Problem, spec: core.Spec) -> jax.Array:
    """The logit of the target ``[N, 1]``, 0 where another shard has it: a look at one token beats a sweep for it."""
    raw = target_logit(problem.head.logits, problem.targets - problem.offset).astype(jnp.float32)
    return core.transform(raw, spec.temperature, spec.softcap)


def _backward(problem: Problem, rows: gradients.Gradient, spec: core.Spec, interpret: Any) -> Problem:
    arrays = _arrays(problem)
    plan = _Plan(list(arrays.values()), spec)
    lanes, row_layout = tiles.lanes(plan.layout), plan.layout.reduce(1)
    columns_of = tiles.row_arrays(problem, rows)
    leaves, tree = jax.tree.flatten(columns_of)

    def body(*refs: Any) -> None:
        sources, rest = dict(zip(arrays, refs, strict=False)), refs[len(arrays) :]
        row, (first, last) = plan.first_row(), plan.share()
        loaded = [tiles.load(ref.at[pl.ds(row, _ROWS)], row_layout) for ref in rest[: len(leaves)]]
        known = jax.tree.unflatten(tree, loaded)

        def step(i: jax.Array, _: Any) -> None:
            at = plan.first_column(i)
            raw = {name: tiles.load(plan.at(ref, row, at), plan.layout) for name, ref in sources.items()}
            tile = _transformed(raw, spec)
            z, y, other = tile["logits"], tile.get("y"), tile.get("other")
            columns = tiles.columns(at, z, plan.layout)
            dz, dy, dother = tiles.dlogits(z, known, spec, columns=columns, y=y, other=other, lanes=lanes)
            found = {"logits": dz, "y": dy, "other": dother}
            for (name, ref), out in zip(sources.items(), rest[len(leaves) :], strict=True):
                value = jnp.zeros_like(z) if found[name] is None else found[name]
                if name != "y":
                    wide = raw[name].astype(jnp.float32)
                    value = core.transform_gradient(value, wide, spec.temperature, spec.softcap)
                tiles.store(plan.at(out, row, at), tiles.where_live(known, value, lanes).astype(ref.dtype))

        lax.fori_loop(first, last, step, None)

    out_type = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays.values()]
    out = plan.kernel(body, out_type, interpret)(_count(problem), *arrays.values(), *leaves)
    found = dict(zip(arrays, out, strict=True))
    other = None if problem.other is None else Head(logits=found["other"])
    return Problem(Head(logits=found["logits"]), other=other, y=found.get("y"))
