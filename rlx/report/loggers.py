"""Loggers of metrics: JSON lines (always), TensorBoard and Weights & Biases (extras)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from rlx.errors import UserError, close_matches
from rlx.report.rows import RESERVED, cut_partial_line, dump_row, write_atomically


class Logger(Protocol):
    """Anything with `write` and `close`."""

    def write(self, step: int, stage: str, split: str, metrics: Mapping[str, Any]) -> None:
        """Records the metrics of one step; values are scalars (Python, numpy or jax)."""
        ...

    def close(self) -> None:
        """Flushes what is left."""
        ...


class JsonlLogger:
    """Appends one line per call to a file; the line is safe from a kill as soon as `write` returns.

    NaN and infinities are written as the strings "NaN", "Infinity" and "-Infinity", so that every line is
    valid JSON; `rlx.report.rows.read_rows` turns them back. A half-written last line that a kill left behind
    is removed when the file is opened.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_partial_line(self.path)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, step: int, stage: str, split: str, metrics: Mapping[str, Any]) -> None:
        """Appends a row."""
        taken = sorted(set(RESERVED) & set(metrics))
        if taken:
            raise UserError(f"a metric cannot be called '{taken[0]}': every row has a key of that name.")
        row = {"stage": stage, "step": int(step), "split": split, **metrics}
        self._append((dump_row(row) + "\n").encode())

    def _append(self, line: bytes) -> None:
        """Writes all of a line, to a file that is still where it was opened.

        Raises:
          OSError: the disk is full, gone ...; it names the file.
        """
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
            there = os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        if not there:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class TensorBoardLogger:
    """Writes scalars ``stage/split/metric`` as TensorBoard events (needs ``rlx[tensorboard]``)."""

    def __init__(self, folder: str | os.PathLike[str]):
        self._writer = _require("tensorboardX", "tensorboard").SummaryWriter(str(folder))

    def write(self, step: int, stage: str, split: str, metrics: Mapping[str, Any]) -> None:
        """Adds one scalar per metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"{stage}/{split}/{name}", float(value), int(step))

    def close(self) -> None:
        """Flushes the events."""
        self._writer.close()


class WandbLogger:
    """Writes scalars ``stage/split/metric`` to Weights & Biases (needs ``rlx[wandb]``); reruns go on.

    Every stage counts its own steps: they are logged as ``stage/step``, against which W&B draws the metrics.
    """

    def __init__(self, folder: str | os.PathLike[str], config: Mapping[str, Any], **options: Any):
        folder = Path(folder).resolve()
        settings = {
            "project": "rlx",
            "name": folder.name,
            "dir": str(folder),
            "config": dict(config),
            **options,
        }
        self._run = _require("wandb", "wandb").init(**settings, resume="allow", id=_run_id(folder))
        self._stages: set[str] = set()

    def write(self, step: int, stage: str, split: str, metrics: Mapping[str, Any]) -> None:
        """Logs one step."""
        if stage not in self._stages:
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._stages.add(stage)
        values = {f"{stage}/{split}/{name}": float(value) for name, value in metrics.items()}
        self._run.log({f"{stage}/step": int(step), **values})

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


class Loggers:
    """Several loggers as one."""

    def __init__(self, loggers: Iterable[Logger]):
        self._loggers = tuple(loggers)

    def write(self, step: int, stage: str, split: str, metrics: Mapping[str, Any]) -> None:
        """Writes to each logger, in order."""
        for logger in self._loggers:
            logger.write(step, stage, split, metrics)

    def close(self) -> None:
        """Closes each logger."""
        for logger in self._loggers:
            logger.close()


def open_loggers(workdir: str | os.PathLike[str], names: Iterable[str] = (), config: Any = None) -> Loggers:
    """``metrics.jsonl`` in `workdir`, and the extra loggers named ("tensorboard", "wandb").

    Raises:
      UserError: an unknown name, or one whose package is not installed.
    """
    loggers: list[Logger] = [JsonlLogger(Path(workdir) / "metrics.jsonl")]
    for name in names:
        if name == "tensorboard":
            loggers.append(TensorBoardLogger(Path(workdir) / "tensorboard"))
        elif name == "wandb":
            loggers.append(WandbLogger(workdir, config.to_dict() if hasattr(config, "to_dict") else config or {}))
        elif name != "jsonl":
            known = ["jsonl", "tensorboard", "wandb"]
            raise UserError(f"unknown logger '{name}'.{close_matches(name, known)} Known: {', '.join(known)}.")
    return Loggers(loggers)


def _require(package: str, extra: str) -> Any:
    try:
        return __import__(package)
    except ImportError:
        raise UserError(f"the logger '{extra}' needs the package {package}: pip install rlx[{extra}]") from None


def _run_id(folder: Path) -> str:
    """The W&B id of a run directory: made once, kept in a file beside the metrics."""
    path = folder / "wandb_id.txt"
    if not path.exists():
        write_atomically(path, os.urandom(6).hex())
    return path.read_text(encoding="utf-8").strip()
