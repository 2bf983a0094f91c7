"""Where arrays live: the ``{data, fsdp, model, sequence}`` mesh of a config, and what lies where on it."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rlx import errors
from rlx.models import axes

AXES = axes.MESH
BATCH = PartitionSpec(("data", "fsdp"))
"""Rows are spread over both axes; fsdp is data parallelism that also shards the parameters."""


def make_mesh(config: Mapping[str, int] | None = None) -> Mesh:
    """The mesh of ``{"data": 2, "fsdp": 1, "model": 2}`` over the first devices; a missing axis has size 1.

    Raises:
      UserError: unknown axis, a size below 1, or more devices asked for than there are.
    """
    sizes, devices = _sizes(config or {}), jax.devices()
    wanted = math.prod(sizes.values())
    if wanted > len(devices):
        raise errors.UserError(f"mesh {sizes} asks for {wanted} devices, there are {len(devices)}.")
    if wanted < len(devices):
        devices = _some(devices, wanted)
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=types, devices=devices)


def fewer(config: Mapping[str, int], count: int) -> dict[str, int]:
    """The sizes of a mesh, cut down to at most ``count`` devices: rows first, each size to a divisor of what it was.

    >>> fewer({"data": 2, "fsdp": 4, "model": 2}, 4)
    {'data': 1, 'fsdp': 2, 'model': 2, 'sequence': 1}
    """
    sizes = _sizes(config)
    for axis, size in sizes.items():
        most = count // (math.prod(sizes.values()) // size)
        sizes[axis] = max((n for n in range(1, min(size, most) + 1) if size % n == 0), default=1)
    return sizes


def _sizes(config: Mapping[str, int]) -> dict[str, int]:
    """The size of every axis, as they are checked."""
    if not isinstance(config, Mapping):
        raise errors.UserError(
            f"mesh must be a block of axes ({', '.join(AXES)}), not {errors.one_line(config, 40)!r}."
        )
    for axis, size in config.items():
        if axis not in AXES:
            raise errors.UserError(
                f"mesh has no axis {axis!r}.{errors.close_matches(axis, AXES)} Axes: {', '.join(AXES)}."
            )
        if not isinstance(size, int) or size < 1:
            raise errors.UserError(f"mesh.{axis} must be a whole number of at least 1, got {size!r}.")
    return {axis: config.get(axis, 1) for axis in AXES}


def _some(devices: list[Any], wanted: int) -> list[Any]:
    """The first devices, as many of every process."""
    each, rest = divmod(wanted, jax.process_count())
    if rest:
        raise errors.UserError(
            f"the mesh asks for {wanted} devices, which do not divide over {jax.process_count()} processes."
        )
    return [x for i in range(jax.process_count()) for x in [d for d in devices if d.process_index == i][:each]]


def batch_shards(mesh: Mesh) -> int:
    """Over how many shards the rows of a batch are spread."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def fit(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """The sharding of one array: an axis of the mesh that does not divide its dimension is left out."""
    return NamedSharding(mesh, axes.fit(spec, shape, mesh.shape))


def tree_shardings(tree: Any, specs: Any, mesh: Mesh) -> Any:
    """Shardings of a tree of arrays; ``specs`` None replicates all of it."""
    if specs is None:
        return jax.tree.map(lambda leaf: NamedSharding(mesh, PartitionSpec()), tree)
    leaves, structure = jax.tree.flatten(tree)
    flat = structure.flatten_up_to(specs)
    return structure.unflatten([fit(spec, np.shape(leaf), mesh) for leaf, spec in zip(leaves, flat, strict=True)])


def share(mesh: Mesh) -> dict[str, Any]:
    """Which part of a batch this process reads: number ``process_index`` of ``process_count`` equal parts, in order.

    Processes that hold the same rows, because another axis of the mesh lies across them, read the same part. Where the
    rows of a process are no such part, it reads all.
    """
    shards = batch_shards(mesh)
    places = NamedSharding(mesh, BATCH).addressable_devices_indices_map((shards,)).values()
    mine = sorted({(where[0].start or 0) if where else 0 for where in places if where is not None})
    first, size = mine[0], len(mine)
    if mine != list(range(first, first + size)) or shards % size or first % size:
        return {"process_index": 0, "process_count": 1}
    return {"process_index": first // size, "process_count": shards // size}


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Places a host batch (this process's :func:`share` of the rows) on the mesh, rows over ``data`` and ``fsdp``.

    Raises:
      UserError: the rows do not divide evenly.
    """
    return _put(batch, mesh, **share(mesh))


def put_whole(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """As :func:`put_batch`, of a batch that every process has all of."""
    return _put(batch, mesh, process_index=0, process_count=1)


def _put(batch: Mapping[str, np.ndarray], mesh: Mesh, process_index: int, process_count: int) -> dict[str, jax.Array]:
    shards = batch_shards(mesh) // process_count
    for name, array in batch.items():
        if len(array) % shards:
            raise errors.UserError(
                f"{name} has {len(array)} rows, which do not divide over mesh.data x mesh.fsdp = {shards} shards: "
                f"make batch_size a multiple of {shards}."
            )
    sharding = NamedSharding(mesh, BATCH)
    if jax.process_count() == 1:
        return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}

    def put(array: np.ndarray) -> jax.Array:
        array = np.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))
        size, before = len(array) * process_count, len(array) * process_index

        def rows(where: Any) -> np.ndarray:
            start, stop, _ = where[0].indices(size)
            return array[start - before : stop - before]

        return jax.make_array_from_callback((size, *array.shape[1:]), sharding, rows)

    return {name: put(array) for name, array in batch.items()}


def lay(array: Any, where: NamedSharding) -> jax.Array:
    """An array with the given sharding; each process that has it on its host lays what its own devices hold."""
    if where.is_fully_addressable or (isinstance(array, jax.Array) and not array.is_fully_addressable):
        return jax.device_put(array, where)
    array = np.asarray(array)
    array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
    return jax.make_array_from_callback(array.shape, where, lambda part: array[part])


def fetch(tree: Any) -> Any:
    """The arrays of a tree on the host, whole, on every process."""
    far = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array) and not x.is_fully_addressable]
    if any(not x.is_fully_replicated for x in far):
        tree = jax.tree.map(_everywhere, tree)
    return jax.device_get(tree)


def _everywhere(x: Any) -> Any:
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return x
    assert isinstance(x.sharding, NamedSharding)  # everything here is placed on a mesh
    return _same(NamedSharding(x.sharding.mesh, PartitionSpec()))(x)


@functools.lru_cache(maxsize=8)
def _same(where: NamedSharding) -> Any:
    """Moves arrays there; one program for each shape."""
    return jax.jit(lambda x: x, out_shardings=where)


def replicate(tree: Any, devices: int) -> Any:
    """Stacks ``devices`` copies of every array on a new leading axis: the layout that ``jax.pmap`` maps over."""
    return jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (devices, *np.shape(x))), tree)


def constrain_rows(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Keeps the leading axis of an activation spread like the batch, whatever the parameters' sharding suggests."""
    if mesh is None or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, BATCH))
