"""From parameters to a Hugging Face folder: sharded safetensors, an index and ``config.json``, all or nothing."""

from __future__ import annotations

import json
import math
import operator
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path as Folder
from typing import Any

import jax
import numpy as np

from rlx.errors import UserError, close_matches
from rlx.models.base import Params
from rlx.models.huggingface.files import DTYPES, Source, write
from rlx.models.huggingface.folder import CONFIG, INDEX, WEIGHTS
from rlx.models.huggingface.names import Place, places
from rlx.models.transformer import Config

SHARD = 5_000_000_000
"""Bytes of a file, if a single tensor is not larger."""
NAMES = {np.dtype(kind).name: name for name, kind in DTYPES.items()}


def save(
    folder: str | os.PathLike[str],
    config: Config,
    params: Params,
    description: Mapping[str, Any],
    *,
    dtype: str | None = None,
    shard_bytes: int = SHARD,
    finish: Callable[[Folder], None] | None = None,
) -> None:
    """Writes a folder that ``transformers`` loads. It appears under its name when it is complete.

    Args:
        folder: does not exist, or is empty.
        config: of the model.
        params: its parameters, on the host or on devices; one tensor at a time is copied.
        description: ``config.json``, see :func:`rlx.models.huggingface.families.describe`.
        dtype: of the numbers; None: that of the parameters.
        shard_bytes: of a file at most.
        finish: may add files, before the folder takes its name.

    Raises:
        UserError: the folder is not empty or cannot be written, or no such type.
    """
    target = Folder(folder).expanduser().absolute()
    check_target(target)
    dtype = dtype or config.param_dtype
    if dtype not in NAMES:
        raise UserError(f"dtype={dtype!r} is none of {', '.join(NAMES)}.{close_matches(dtype, NAMES)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = Folder(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UserError(f"{target.parent} cannot be written: {error.strerror or error}") from None
    try:
        hidden.chmod(0o755)
        _write_weights(hidden, _sources(config, params), NAMES[dtype], shard_bytes)
        text = json.dumps({**description, "torch_dtype": dtype}, indent=2, sort_keys=True)
        (hidden / CONFIG).write_text(f"{text}\n", encoding="utf-8")
        if finish is not None:
            finish(hidden)
        hidden.rename(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def check_target(target: Folder) -> None:
    """Makes sure that nothing would be overwritten.

    Raises:
        UserError: ``target`` is a file, or a folder with something in it.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not an empty folder: name another one, nothing is overwritten")


def _sources(config: Config, params: Params) -> list[Source]:
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        own = places(config, tuple(entry.key for entry in path))
        stacked = config.scan_layers and path[0].key == "layers"
        for i, place in enumerate(own):
            shape = leaf.shape[1:] if stacked else leaf.shape
            shape = shape[::-1] if place.transposed else shape
            found.append(Source(place.name, shape, _reader(leaf, i if stacked else None, place)))
    return sorted(found, key=lambda source: _natural(source.name))


def _reader(leaf: Any, layer: int | None, place: Place) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        own = np.asarray(leaf if layer is None else operator.getitem(leaf, layer))
        return own.T if place.transposed else own

    return read


def _natural(name: str) -> list[Any]:
    """Layers in their order: 2 before 10."""
    return [(part.isdigit(), int(part) if part.isdigit() else part) for part in name.split(".")]


def _write_weights(folder: Folder, sources: list[Source], dtype: str, limit: int) -> None:
    size = np.dtype(DTYPES[dtype]).itemsize
    shards: list[list[Source]] = [[]]
    filled = total = 0
    for source in sources:
        own = math.prod(source.shape) * size
        if shards[-1] and filled + own > limit:
            shards.append([])
            filled = 0
        shards[-1].append(source)
        filled, total = filled + own, total + own
    if len(shards) == 1:
        write(folder / WEIGHTS, sources, dtype)
        return
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        write(folder / name, shard, dtype)
    weight_map = {source.name: name for name, shard in zip(names, shards, strict=True) for source in shard}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(f"{json.dumps(index, indent=2)}\n", encoding="utf-8")
