"""What the Mosaic GPU kernels share: reductions with a layout, loads and stores that need no alignment, block sizes."""

from __future__ import annotations

import functools
import inspect
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu

from rlx_kernels import core, gradients
from rlx_kernels.problem import Problem

SUMS = core.SWEPT

# Before jax 0.11 the index is an argument of its own and plain assignment is the only store.
_INDEX = ((),) if "idx" in inspect.signature(plgpu.load).parameters else ()
_STORE = getattr(plgpu, "store", None)


@functools.cache
def sizes() -> dict[str, Any]:
    """Block sizes and what they were found on."""
    return json.loads((pathlib.Path(__file__).parent / "sizes" / "hopper.json").read_text())


def params(spec: core.Spec) -> plgpu.CompilerParams:
    """How a kernel is compiled.

    The hardware's own exponential is exact enough below a maximum of 0, and three times as fast; its hyperbolic tangent
    (of a soft-cap) is not: it errs by 5e-4.
    """
    semantics = plgpu.LoweringSemantics.Warpgroup
    return plgpu.CompilerParams(lowering_semantics=semantics, approx_math=spec.softcap is None)


def lanes(layout: Any) -> core.Lanes:
    """Reductions of tiles with this layout to rows ``[R]``, and rows spread over a tile."""
    return core.Lanes(
        total=lambda tile: tile.sum(1),
        largest=lambda tile: tile.max(1),
        smallest=lambda tile: tile.min(1),
        spread=lambda rows, tile: plgpu.layout_cast(lax.broadcast_in_dim(rows, tile.shape, (0,)), layout),
    )


def load(ref: Any, layout: Any) -> jax.Array:
    """What ``ref`` holds, in registers."""
    return plgpu.load(ref, *_INDEX, layout=layout, optimized=False)


def store(ref: Any, value: jax.Array) -> None:
    """Writes registers to global memory."""
    if _STORE is None:
        ref[...] = value
    else:
        _STORE(ref, value, optimized=False)


def dtype_of(name: str) -> Any:
    """Type of one of the sums."""
    return jnp.int32 if name == "top" else jnp.float32


def no_sums(names: list[str], rows: int, layout: Any) -> core.Sums:
    """The sums of no tokens, in registers."""

    def row(name: str) -> Any:
        value = core.LOWEST if name in ("m", "m2") else 0
        return plgpu.layout_cast(jnp.full((rows,), value, dtype_of(name)), layout)

    return core.Sums(**{name: row(name) for name in names})


def columns(first: Any, tile: jax.Array, layout: Any) -> jax.Array:
    """Token ids of a tile that begins at ``first``."""
    return first + plgpu.broadcasted_iota(jnp.int32, tile.shape, 1, layout=layout)


def merge_parts(parts: list[Any], names: list[str], rows: int, spec: core.Spec) -> core.Sums:
    """Sums ``[N, 1]`` from those of parts of the vocabulary ``[P, >= N]``, one array for each name."""
    found = core.Sums(**dict(zip(names, parts, strict=True)))
    while found.m.shape[0] > 1:  # neighbours in pairs, so that the first of equal maxima stays the first
        even, odd, last = (jax.tree.map(lambda x, c=cut: x[c], found) for cut in _pairs(found.m.shape[0]))
        found = jax.tree.map(lambda *x: jnp.concatenate(x), core.merge(even, odd, spec), last)
    return jax.tree.map(lambda x: x[0, :rows, None], found)


def _pairs(count: int) -> tuple[slice, slice, slice]:
    """Of ``count`` parts the first ones and the second ones of the pairs, and the one without a second."""
    return slice(0, count - 1, 2), slice(1, None, 2), slice(count - count % 2, None)


class Known(NamedTuple):
    """What a kernel knows of a row on its way back: numbers ``[R]``, token ids counted in this shard."""

    rows: gradients.Gradient
    targets: Any
    live: Any


def row_arrays(problem: Problem, rows: gradients.Gradient) -> Known:
    """The rows of a problem as arrays ``[N]``."""
    top = None if rows.top_index is None else rows.top_index - problem.offset
    targets = None if rows.target is None else problem.targets - problem.offset
    live = None if problem.live is None else problem.live.astype(jnp.int32)
    return jax.tree.map(lambda value: value[:, 0], Known(rows._replace(top_index=top), targets, live))


def where_live(known: Known, value: jax.Array, lanes: core.Lanes) -> jax.Array:
    """``value``, 0 in rows that get no gradient."""
    return value if known.live is None else jnp.where(lanes.spread(known.live, value) != 0, value, 0)


def dlogits(z: jax.Array, known: Known, spec: core.Spec, **tile: Any) -> tuple[jax.Array, Any, Any]:
    """:func:`rlx_kernels.gradients.dlogits` of known rows."""
    return gradients.dlogits(z, known.rows, spec, targets=known.targets, **tile)
