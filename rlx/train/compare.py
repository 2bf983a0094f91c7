"""Whether two runs are the same to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlx.train.restore import restore
from rlx.train.workdir import METRICS, RESULT


def differing(folder: Path, other: Path) -> list[str]:
    """What is not the same to the bit in two finished runs: files, and leaves of the last state.

    Args:
      folder: a run directory.
      other: that of the other run.
    """
    found = [] if (folder / METRICS).read_bytes() == (other / METRICS).read_bytes() else [METRICS]
    results = [json.loads((path / RESULT).read_text(encoding="utf-8"))["metrics"] for path in (folder, other)]
    found += [] if results[0] == results[1] else [RESULT]
    return found + differing_leaves(restore(folder).state, restore(other).state)


def differing_leaves(tree: Any, other: Any) -> list[str]:
    """The leaves of two trees of the same structure that are not the same to the bit; NaN is the same as itself.

    >>> differing_leaves({"a": np.zeros(1), "b": np.ones(1)}, {"a": np.zeros(1), "b": np.zeros(1)})
    ["['b']"]
    """
    pairs = zip(*(jax.tree_util.tree_leaves_with_path(x) for x in (tree, other)), strict=True)
    return [jax.tree_util.keystr(path) for (path, ours), (_, theirs) in pairs if not _same(ours, theirs)]


def _same(ours: Any, theirs: Any) -> bool:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape) and ours.tobytes() == theirs.tobytes()
