"""The reference policy of a preference stage: its log-probabilities computed once and cached, or in every step."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlx.data.dataset import Dataset
from rlx.method import Method
from rlx.train import processes
from rlx.train.sharding import fetch

CACHEABLE = "reference_logps"
"""What depends on an example alone; every other reference array needs the parameters in each step."""

Score = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""This process's part of a host batch -> ``[B, K]`` reference log-probabilities of all of it."""


def needed(method: Method) -> set[str]:
    """Names of the reference arrays that a method reads."""
    return {name for name in (*method.needs, *method.prepare_needs) if name.startswith("reference_")}


def is_cached(method: Method, wanted: str, examples_used: int, examples: int) -> bool:
    """Whether a run uses the cache.

    Args:
      method: what it trains with.
      wanted: ``config.reference``.
      examples_used: steps times batch size.
      examples: size of the training set; with ``auto``, the cache pays from the second use of an example.
    """
    able = needed(method) == {CACHEABLE}
    return able and (wanted == "cached" or (wanted == "auto" and examples_used > examples))


def content_hash(dataset: Dataset, params: Any, model: Mapping[str, Any]) -> str:
    """What a cached array depends on: the examples (text, tokenizer, lengths, limit), the parameters, the model."""
    digest = hashlib.sha256(json.dumps([dataset.fingerprint, dict(model)], sort_keys=True, default=str).encode())
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        array = np.asarray(fetch(leaf))
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def cached_logps(
    folder: Path, key: str, dataset: Dataset, batch_size: int, score: Score, part: Mapping[str, Any] | None = None
) -> np.ndarray:
    """``[len(dataset), K]`` reference log-probabilities, from ``folder/<key>.npz`` or computed and put there.

    Args:
      folder: holds the cache.
      key: :func:`content_hash` of the data set and the reference.
      dataset: the examples.
      batch_size: of the computation.
      score: see :data:`Score`.
      part: of a batch that this process reads (:func:`rlx.train.sharding.share`); all of it unless given.
    """
    group = processes.group()
    path = folder / f"{key}.npz"
    found = _load(path)
    if all(group.gather(found is not None and len(found) == len(dataset))):
        assert found is not None
        return found
    parts = [score(batch) for batch in dataset.batches(batch_size, **part or {})]
    logps = np.concatenate(parts)[: len(dataset)] if parts else np.zeros((0, dataset.lengths.candidates), np.float32)
    if group.leads:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{key}.{os.getpid()}.npz"
        np.savez(temporary, reference_logps=logps)
        os.replace(temporary, path)
    return logps


def _load(path: Path) -> np.ndarray | None:
    """The array of a cache file; None when there is none, or a damaged one, which is computed again."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return arrays[CACHEABLE]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def attach(batch: dict[str, np.ndarray], logps: np.ndarray) -> dict[str, np.ndarray]:
    """The batch with ``reference_logps`` by its ``index``; rows that only fill it up get 0.

    >>> attach({"index": np.array([1, 2])}, np.array([[-1.0], [-2.0]]))["reference_logps"].tolist()
    [[-2.0], [0.0]]
    """
    filled = np.concatenate([logps, np.zeros_like(logps[:1], shape=(1, *logps.shape[1:]))])
    return batch | {CACHEABLE: filled[np.minimum(batch["index"], len(logps))]}
