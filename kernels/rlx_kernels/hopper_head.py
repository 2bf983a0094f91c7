"""Statistics of the logits ``x @ w`` and their gradients on Hopper: the logits exist only in registers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from rlx_kernels import core, gradients
from rlx_kernels import hopper_product as product
from rlx_kernels import hopper_tiles as tiles
from rlx_kernels.problem import Head, Problem, zeros_like

_ROW = product.TILE.reduce(1)
_LANES = tiles.lanes(product.TILE)


def _check(problem: Problem) -> None:
    head = problem.head
    if {str(head.x.dtype), str(head.w.dtype)} != {"bfloat16"}:
        raise NotImplementedError(f"hopper kernels multiply bfloat16, not {head.x.dtype} by {head.w.dtype}")
    if problem.y is not None or problem.other is not None:
        raise NotImplementedError("hopper kernels take y and another policy with given logits only")


def forward(problem: Problem, spec: core.Spec, *, interpret: Any = None) -> core.Sums:
    """Sums of every row, fields ``[N, 1]``."""
    _check(problem)
    head, vocabulary = problem.head, problem.head.columns
    x, w = product.padded(head.x, 8, product.UNIT), product.padded(head.w, product.UNIT, product.UNIT)
    plan = product.Plan.of(x, w)
    names = [name for name in tiles.SUMS if name in ("m", "s") or spec.needs(name)]
    arrays = _arrays(plan, head.bias, {"targets": (problem.targets - problem.offset)[:, 0]} if "t" in names else {})

    def make(refs: Any, scratch: Any, row: jax.Array, group: jax.Array) -> product.Task:
        sources, outs = dict(zip(arrays, refs, strict=False)), refs[len(arrays) :]

        def step(i: jax.Array, raw: jax.Array, found: core.Sums) -> core.Sums:
            targets = None if "t" not in names else tiles.load(sources["targets"].at[pl.ds(row, product.ROWS)], _ROW)
            for piece in product.pieces(plan, i, raw, sources.get("bias"), vocabulary, spec):
                target = None if targets is None else targets - piece.first
                added = core.sums(piece.z, spec, columns=piece.columns, targets=target, lanes=_LANES)
                top = None if added.top is None else added.top + piece.first
                found = core.merge(found, added._replace(top=top), spec)
            return found

        def finish(found: core.Sums) -> None:
            for name, out in zip(names, outs, strict=True):
                tiles.store(out.at[lax.axis_index("part"), pl.ds(row, product.ROWS)], getattr(found, name))

        return product.Task(tiles.no_sums(names, product.ROWS, _ROW), step, finish)

    out_type = [jax.ShapeDtypeStruct((plan.parts, plan.blocks * product.BLOCK), tiles.dtype_of(name)) for name in names]
    how = {"compiler_params": tiles.params(spec), "interpret": interpret}
    parts = product.call(plan, x, w, list(arrays.values()), problem.count, make, out_type, **how)
    found = tiles.merge_parts(parts, names, head.rows, spec)
    return found if found.top is None else found._replace(top=found.top + problem.offset)


def _arrays(plan: product.Plan, bias: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Rows and bias up to whole blocks and tiles, as kernels read them without a look at their end."""
    length = plan.blocks * product.BLOCK
    arrays = {name: product.padded(row, *[1] * (row.ndim - 1), length) for name, row in rows.items()}
    return arrays if bias is None else arrays | {"bias": product.padded(bias, plan.count * plan.wide)}


def backward(problem: Problem, rows: gradients.Gradient, spec: core.Spec, *, interpret: Any = None) -> Problem:
    """Gradients with respect to ``x``, ``w`` and ``bias``: for one chunk of the vocabulary after the other those of the
    logits in bfloat16, and two products.
    """
    _check(problem)
    head, n = problem.head, problem.head.rows
    alive = _alive(problem)
    x = head.x if alive is None else jnp.where(alive, head.x, 0)
    x, w = product.padded(x, 8, product.UNIT), product.padded(head.w, product.UNIT, 1)
    known = tiles.row_arrays(problem._replace(live=alive), rows)

    def chunk(start: Any, size: int, w: jax.Array, found: Head) -> Head:
        """``found`` with the ``size`` columns from ``start``."""
        part, bias = lax.dynamic_slice_in_dim(w, start, size, 1), None
        if head.bias is not None:
            bias = lax.dynamic_slice_in_dim(head.bias, start, size)
        dz = _dlogits(x, part, bias, _shifted(known, start), problem.count, spec, interpret)
        dx = jnp.dot(dz, part.T, preferred_element_type=jnp.float32)
        dw = jnp.dot(x.T, dz, preferred_element_type=jnp.float32).astype(w.dtype)
        dbias = None
        if bias is not None:
            dbias = lax.dynamic_update_slice_in_dim(found.bias, dz.sum(0, dtype=jnp.float32), start, 0)
        return Head(x=found.x + dx, w=lax.dynamic_update_slice_in_dim(found.w, dw, start, 1), bias=dbias)

    size = chunk_size(x.shape[0], x.shape[1], head.columns)
    shapes = Head(x=jax.ShapeDtypeStruct(x.shape, jnp.float32), w=w)
    shapes = shapes if head.bias is None else shapes._replace(bias=jax.ShapeDtypeStruct(head.bias.shape, jnp.float32))
    whole, rest = divmod(head.columns, size)
    found = zeros_like(shapes, problem, rows)
    found = lax.fori_loop(0, whole, lambda i, found: chunk(i * size, size, w, found), found)
    if rest:  # only then, in the memory of the chunks before it
        w, found = lax.optimization_barrier((w, found))
        found = chunk(whole * size, rest, w, found)
    bias = None if head.bias is None else found.bias.astype(head.bias.dtype)
    width = head.x.shape[1]
    return Problem(Head(x=found.x[:n, :width].astype(head.x.dtype), w=found.w[:width], bias=bias))


def _alive(problem: Problem) -> jax.Array | None:
    """Rows ``[N, 1]`` that get a gradient; the others may hold anything."""
    if problem.count is None:
        return problem.live
    before = lax.broadcasted_iota(jnp.int32, (problem.head.rows, 1), 0) < problem.count
    return before if problem.live is None else before & problem.live


def chunk_size(rows: int, width: int, vocabulary: int) -> int:
    """Columns of a chunk: its gradient of the logits, its slices of ``w`` and of the gradient of ``w`` fit a budget."""
    size = tiles.sizes()["product"]
    largest = max(size["chunk_bytes"] // (2 * rows + 4 * width) // size["columns"], 1)
    chunks = pl.cdiv(pl.cdiv(vocabulary, size["columns"]), largest)
    return min(pl.cdiv(pl.cdiv(vocabulary, chunks), size["columns"]) * size["columns"], vocabulary)


def _shifted(known: tiles.Known, start: Any) -> tiles.Known:
    """The same rows for columns that begin at ``start``."""
    top = None if known.rows.top_index is None else known.rows.top_index - start
    targets = None if known.targets is None else known.targets - start
    return known._replace(rows=known.rows._replace(top_index=top), targets=targets)


def _stacked(known: tiles.Known) -> tuple[dict[str, jax.Array], list[tuple[str, int]], Any]:
    """The rows in one array for each type: a kernel keeps the address of each array in registers."""
    leaves, tree = jax.tree.flatten(known)
    kinds: dict[str, list[jax.Array]] = {}
    places = []
    for leaf in leaves:
        stack = kinds.setdefault(str(leaf.dtype), [])
        places.append((str(leaf.dtype), len(stack)))
        stack.append(leaf)
    return {kind: jnp.stack(stack) for kind, stack in kinds.items()}, places, tree


def _dlogits(x: Any, w: Any, bias: Any, known: tiles.Known, count: Any, spec: core.Spec, interpret: Any) -> jax.Array:
    """Gradient with respect to ``x @ w + bias`` in bfloat16; the kernel's columns beyond ``w`` are cut off."""
    vocabulary, w = w.shape[1], product.padded(w, 1, product.UNIT)
    plan = product.Plan.of(x, w)
    stacks, places, tree = _stacked(known)
    arrays = _arrays(plan, bias, stacks)

    def make(refs: Any, stages: Any, row: jax.Array, group: jax.Array) -> product.Task:
        sources, dz_ref, stage = dict(zip(arrays, refs, strict=False)), refs[-1], stages.at[group]

        def write(value: jax.Array, column: jax.Array) -> None:
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)
            stage[...] = value.astype(stage.dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(stage, dz_ref.at[pl.ds(row, product.ROWS), pl.ds(column, plan.epilogue)])

        def step(i: jax.Array, raw: jax.Array, _: Any) -> None:
            loaded = [tiles.load(sources[kind].at[k, pl.ds(row, product.ROWS)], _ROW) for kind, k in places]
            rows = jax.tree.unflatten(tree, loaded)
            for piece in product.pieces(plan, i, raw, sources.get("bias"), plan.count * plan.wide, spec):
                known = _shifted(rows, piece.first)
                dz = tiles.dlogits(piece.z, known, spec, columns=piece.columns, lanes=_LANES)[0]
                dz = core.transform_gradient(dz, piece.raw, spec.temperature, spec.softcap)
                write(tiles.where_live(known, dz, _LANES), piece.first)

        def skip(i: jax.Array, _: Any) -> None:
            for at in range(0, plan.wide, plan.epilogue):
                nothing = jnp.zeros((product.ROWS, plan.epilogue), jnp.float32)
                write(plgpu.layout_cast(nothing, product.TILE), i * plan.wide + at)

        return product.Task(None, step, lambda _: plgpu.wait_smem_to_gmem(0), skip)

    stages = plgpu.SMEM((product.GROUPS, product.ROWS, plan.epilogue), jnp.bfloat16, transforms=product.ARRANGED)
    out_type = [jax.ShapeDtypeStruct((x.shape[0], w.shape[1]), jnp.bfloat16)]
    how = {"compiler_params": tiles.params(spec), "interpret": interpret, "scratch": stages}
    return product.call(plan, x, w, list(arrays.values()), count, make, out_type, **how)[0][:, :vocabulary]
