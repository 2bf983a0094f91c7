"""Where arrays live: the ``{data, fsdp, model, sequence}`` mesh of a config, and what lies where on it."""

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
    config = dict(config or {})
    for axis, size in config.items():
        if axis not in AXES:
            raise errors.UserError(
                f"mesh has no axis {axis!r}.{errors.close_matches(axis, AXES)} Axes: {', '.join(AXES)}."
            )
        if not isinstance(size, int) or size < 1:
            raise errors.UserError(f"mesh.{axis} must be a whole number of at least 1, got {size!r}.")
    shape = tuple(config.get(axis, 1) for axis in AXES)
    wanted, devices = int(np.prod(shape)), jax.devices()
    if wanted > len(devices):
        raise errors.UserError(
            f"mesh {dict(zip(AXES, shape, strict=True))} asks for {wanted} devices, there are {len(devices)}."
        )
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices[:wanted])


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


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Places a host batch (this process's rows) on the mesh, rows spread over ``data`` and ``fsdp``.

    Raises:
      UserError: the rows do not divide evenly.
    """
    shards = batch_shards(mesh) // jax.process_count()
    for name, array in batch.items():
        if len(array) % max(shards, 1):
            raise errors.UserError(
                f"{name} has {len(array)} rows, which do not divide over mesh.data x mesh.fsdp = {shards} shards: "
                f"make batch_size a multiple of {shards}."
            )
    sharding = NamedSharding(mesh, BATCH)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def replicate(tree: Any, devices: int) -> Any:
    """Stacks ``devices`` copies of every array on a new leading axis: the layout that ``jax.pmap`` maps over."""
    return jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (devices, *np.shape(x))), tree)


def constrain_rows(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Keeps the leading axis of an activation spread like the batch, whatever the parameters' sharding suggests."""
    if mesh is None or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, BATCH))
