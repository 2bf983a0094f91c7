"""From safetensors files straight into the shards of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as Folder
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from rlx.errors import UserError, close_matches
from rlx.models.base import Params
from rlx.models.huggingface.files import Entry
from rlx.models.huggingface.folder import read_tensors
from rlx.models.huggingface.names import NEW, Path, Place, places, plain
from rlx.models.transformer import Config


def read(folder: Folder, config: Config, shapes: Params, shardings: Params | None = None) -> Params:
    """The parameters of a folder, each device reading its part of each tensor.

    Args:
        folder: with safetensors files.
        config: of the model.
        shapes: ``Model.shapes()``; tensors are converted to these types.
        shardings: of each leaf; None: one device has all.

    Returns:
        Parameters. A scalar head that the files lack is zero.

    Raises:
        UserError: tensors are missing, or too many, or of another shape; or as :func:`read_tensors`.
    """
    found = _by_plain_name(read_tensors(folder))
    everywhere = SingleDeviceSharding(jax.devices()[0])
    shardings = jax.tree.map(lambda _: everywhere, shapes) if shardings is None else shardings
    paths = [_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    wanted = {path: places(config, path) for path in paths}
    _check_names(folder, {place.name for own in wanted.values() for place in own}, found, config.tie_embeddings)

    def leaf(path: Any, shape: jax.ShapeDtypeStruct, where: Any) -> jax.Array:
        stacked = config.scan_layers and _names(path)[0] == "layers"
        own = wanted[_names(path)]
        for place in own:
            _check_shape(place, found.get(place.name), shape.shape[1:] if stacked else shape.shape)

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # no array is without a shape
            if not stacked:
                return _part(own[0], found, index, shape)
            return np.stack([_part(place, found, index[1:], shape) for place in own[index[0]]])

        return jax.make_array_from_callback(shape.shape, where, part)

    return jax.tree_util.tree_map_with_path(leaf, shapes, shardings)


def _names(path: Any) -> Path:
    return tuple(entry.key for entry in path)


def _by_plain_name(tensors: Mapping[str, Entry]) -> dict[str, Entry]:
    return {own: entry for name, entry in tensors.items() if (own := plain(name)) is not None}


def _part(place: Place, found: Mapping[str, Entry], index: tuple[slice, ...], like: Any) -> np.ndarray:
    entry = found.get(place.name)
    if entry is None:  # of a new head
        sizes = (len(range(*cut.indices(size))) for cut, size in zip(index, like.shape, strict=True))
        return np.zeros(tuple(sizes), like.dtype)
    numbers = entry[index[::-1]].T if place.transposed else entry[index]
    return np.ascontiguousarray(numbers, like.dtype)


def _check_names(folder: Folder, wanted: set[str], found: Mapping[str, Entry], tied: bool) -> None:
    missing = sorted(wanted - found.keys() - set(NEW))
    unused = {"lm_head.weight"} if tied else set()  # some files hold a copy of the tied embedding
    extra = sorted(found.keys() - wanted - set(NEW) - unused)
    if missing:
        near = close_matches(missing[0], extra)
        raise UserError(f"{folder} lacks {_some(missing)}, which its config.json asks for.{near}")
    if extra:
        raise UserError(f"{folder} has {_some(extra)}, for which the model of its config.json has no place")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more tensors" if len(names) > 3 else ""
    return ", ".join(repr(name[:120]) for name in names[:3]) + more


def _check_shape(place: Place, entry: Entry | None, shape: tuple[int, ...]) -> None:
    wanted = shape[::-1] if place.transposed else shape
    if entry is not None and entry.shape != wanted:
        raise UserError(
            f"{entry.file}: {place.name!r} has the shape {list(entry.shape)}, but config.json makes it {list(wanted)}"
        )
