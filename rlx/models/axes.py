"""Logical axes: every dimension of a parameter or an activation has a name, and one table says where it is split.

The mesh has the axes ``data`` and ``fsdp`` (rows of the batch; ``fsdp`` also splits parameters), ``model`` (heads,
feed-forward units, vocabulary) and ``sequence`` (positions: every device holds a part of each row, and attention
gathers keys and values). Models name dimensions and never a mesh; the step says which mesh it is for (:func:`on`).
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator, Mapping, Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MESH = ("data", "fsdp", "model", "sequence")
RULES: dict[str | None, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "length": "sequence",
    "tokens": ("data", "fsdp"),  # rows and positions as one dimension, where no position is split
    "keys": None,
    "replica": "data",  # rows, while "fsdp" splits the width
    "part": "fsdp",  # the width, while "sequence" splits positions
    "features": None,
    "vocab": "model",
    "heads": "model",
    "kv_heads": "model",
    "ffn": "model",
    "embed": ("fsdp", "sequence"),
    "rank": None,
    None: None,
}
"""Logical name -> mesh axes: rows and activations first, then parameters. ``embed`` is the width of a parameter,
``features`` that of an activation, which every device has whole."""

_MESH: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("mesh", default=None)


@contextlib.contextmanager
def on(mesh: Mesh | None) -> Iterator[None]:
    """While entered (at trace time), :func:`constrain` lays activations out on ``mesh``."""
    token = _MESH.set(mesh)
    try:
        yield
    finally:
        _MESH.reset(token)


def spec(names: Sequence[str | None]) -> PartitionSpec:
    """The mesh axes of logical names.

    >>> tuple(spec(("embed", "heads")))
    (('fsdp', 'sequence'), 'model')
    """
    return PartitionSpec(*(RULES[name] for name in names))


def fit(wanted: PartitionSpec, shape: Sequence[int], mesh_shape: Mapping[str, int]) -> PartitionSpec:
    """The part of a spec that an array can have: axes of size 1, and those that do not divide its dimension, are left
    out, the last ones first.

    >>> tuple(fit(PartitionSpec(("fsdp", "sequence"), "model"), (6, 5), {"fsdp": 2, "sequence": 2, "model": 2}))
    ('fsdp', None)
    """
    padded = (*wanted, *(None,) * (len(shape) - len(wanted)))
    return PartitionSpec(*(_fit(entry, size, mesh_shape) for entry, size in zip(padded, shape, strict=True)))


def _fit(entry: str | tuple[str, ...] | None, size: int, mesh_shape: Mapping[str, int]) -> str | tuple[str, ...] | None:
    names = () if entry is None else (entry,) if isinstance(entry, str) else entry
    kept = tuple(name for name in names if mesh_shape.get(name, 1) > 1)
    while kept and size % math.prod(mesh_shape[name] for name in kept):
        kept = kept[:-1]
    return None if not kept else kept[0] if len(kept) == 1 else kept


def constrain(x: jax.Array, names: Sequence[str | None]) -> jax.Array:
    """``x`` with its dimensions laid out by their logical names; ``x`` itself where no mesh was said."""
    mesh = _MESH.get()
    if mesh is None or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, fit(spec(names), x.shape, mesh.shape)))


def leading(rows: int, length: int) -> tuple[int, ...]:
    """How a model lays out the tokens of a batch: as one dimension, unless positions are split over devices."""
    return (rows, length) if splits_length() else (rows * length,)


def splits_length() -> bool:
    """Whether the positions of a row are spread over devices."""
    mesh = _MESH.get()
    return mesh is not None and mesh.shape.get("sequence", 1) > 1


def look_up(table: jax.Array, rows: jax.Array) -> jax.Array:
    """Rows ``[N * T]`` or ``[N, T]`` of a table ``("vocab", "embed")`` as an :func:`activation`.

    Each device first looks all tokens of its replica up in its part of the width; then, one axis of the mesh at a time,
    parts and rows change places. In one step XLA would copy the whole to every device.
    """
    if rows.ndim == 1:
        return activation(constrain(table[rows], ("replica", "embed")))
    x = constrain(table[constrain(rows, ("replica", None))], ("replica", None, "embed"))
    return activation(constrain(x, ("replica", "length", "part")))


def activation(x: jax.Array, feature: str = "features") -> jax.Array:
    """An activation ``[N * T, F]`` or ``[N, T, F]`` (:func:`leading`), its last dimension named ``feature``."""
    return constrain(x, ("tokens", feature) if x.ndim == 2 else ("batch", "length", feature))
