"""What the host does about losses that are not finite, and about updates that were skipped: it keeps the batch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from rlx.errors import UserError
from rlx.report.rows import dump_row, write_atomically
from rlx.train.guard import EXPLODED, SKIPPED
from rlx.train.log import say

FOLDER = "bad_batches"
MOST = 50
"""Batches that are kept of a run."""


class Watching(Protocol):
    """Anything that is called as a :class:`Watch` is."""

    def __call__(self, stage: str, step: int, found: Mapping[str, Any], batch: Mapping[str, np.ndarray]) -> None:
        """Lets a step pass, or raises a ``UserError``."""
        ...


class Watch:
    """Looks at the metrics of every step.

    Args:
      on_nan: ``stop``, ``skip`` or ``continue``.
      explode: bound on the norm of the gradient, for the message.
      max_skips: steps in a row that may be skipped.
      folder: of the run, for bad batches; None keeps none.
    """

    def __init__(self, on_nan: str, explode: float | None = None, max_skips: int = 10, folder: Path | None = None):
        self.on_nan, self.explode, self.max_skips, self.folder = on_nan, explode, max_skips, folder
        self.in_a_row = 0

    def __call__(self, stage: str, step: int, found: Mapping[str, Any], batch: Mapping[str, np.ndarray]) -> None:
        """Lets a step pass, or keeps its batch, and ends the run where the config says so.

        Args:
          stage: name of the stage.
          step: of the stage.
          found: metrics, on the host.
          batch: what was learnt from.

        Raises:
          UserError: the loss or the norm of the gradient is NaN, infinite or too large, or was so too often in a row.
        """
        if SKIPPED in found and found[SKIPPED].sum > 0:
            self.in_a_row += 1
            place = self._keep(stage, step, "its update was skipped", found, batch)
            say(f"warning: skipped an update of step {step} of the stage {stage!r}: {place}")
            if self.in_a_row >= self.max_skips:
                raise UserError(
                    f"updates of {self.in_a_row} steps in a row were skipped, up to step {step} of the stage {stage!r} "
                    f"(config.max_skips); {place}. {_REMEDY}"
                )
            return
        self.in_a_row = 0
        reason = self._reason(found) if self.on_nan == "stop" else ""
        if reason:
            place = self._keep(stage, step, reason, found, batch)
            raise UserError(f"{reason} at step {step} of the stage {stage!r}; {place}. {_REMEDY}")

    def _reason(self, found: Mapping[str, Any]) -> str:
        """What is wrong; a loss shows the parameters before the step, the gradient those after it."""
        for name in ("loss", "grad_norm"):
            if name in found and not math.isfinite(found[name].sum):
                return f"{name} is {float(found[name].sum)}"
        if EXPLODED in found and found[EXPLODED].sum > 0:
            return f"grad_norm is {found['grad_norm'].value:.4g} (config.explode={self.explode})"
        return ""

    def _keep(self, stage: str, step: int, reason: str, found: Mapping[str, Any], batch: Mapping[str, Any]) -> str:
        """Keeps a batch, and says where; of a run of several processes each keeps what it has read."""
        if self.folder is None:
            return "its batch is not kept"
        folder = self.folder / FOLDER
        part = f".process_{jax.process_index()}" if jax.process_count() > 1 else ""
        path = folder / f"{stage}_{step:08d}{part}.npz"
        if len(list(folder.glob("*.npz"))) >= MOST:
            return f"its batch is not kept, {folder} holds {MOST} of them"
        folder.mkdir(exist_ok=True)
        values = {name: float(metric.value) for name, metric in found.items()}
        save_batch(path, {"stage": stage, "step": step, "reason": reason}, values, batch)
        return f"its batch is {path}"


def save_batch(
    path: Path, what: Mapping[str, Any], values: Mapping[str, float], batch: Mapping[str, np.ndarray]
) -> None:
    """Writes the arrays of a batch, and beside them a summary for people.

    Args:
      path: ``.npz``: every array by its name, what is known by its own, metrics as ``metrics/<name>``; no objects.
      what: stage, step, reason.
      values: metrics.
      batch: arrays on the host.
    """
    arrays: dict[str, Any] = {name: np.asarray(array) for name, array in batch.items()}
    rows = arrays["index"].tolist() if "index" in arrays else []
    told = {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}
    summary = {**what, "rows": rows, "metrics": json.loads(dump_row(values)), "arrays": told}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp.npz")
    known: dict[str, Any] = {name: np.asarray(value) for name, value in what.items()}
    np.savez(temporary, **known, **{f"metrics/{name}": np.asarray(value) for name, value in values.items()}, **arrays)
    os.replace(temporary, path)
    write_atomically(path.with_suffix(".json"), json.dumps(summary, indent=2) + "\n")


_REMEDY = (
    "The last checkpoint is older and untouched. Try a smaller learning rate, a longer warm-up or clip_norm, or leave "
    "such updates out (config.on_nan='skip'); with --force the run goes on from there with another config."
)
