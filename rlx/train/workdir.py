"""The run directory: its lock, its config.json, its result.json, and the compilation cache in it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from rlx import config as configs
from rlx.errors import UserError
from rlx.lock import Lock
from rlx.report.rows import dump_row, write_atomically
from rlx.train import processes
from rlx.train.log import say
from rlx.train.storage import StorageError, writing

CONFIG, METRICS, RESULT, CHECKPOINTS = "config.json", "metrics.jsonl", "result.json", "checkpoints"
SPEED = "speed.jsonl"
CACHE = Path(".cache", "jax")
OF_OUTPUT = ("log_every", "eval_every", "checkpoint_every", "keep", "checksums", "loggers")
OF_FAULTS = ("max_skips", "retries", "pause_s", "timeout_s")
HARMLESS = (*OF_OUTPUT, *OF_FAULTS)
"""Last words of the keys that may change between two calls: they decide what is written and what is waited for, not
what is learned."""
WHERE = ("mesh", "engine")
"""First words of the keys that say where a run computes, not what: it may go on elsewhere, to the same numbers but for
the rounding of sums in another order."""
LIBRARIES = ("rlx", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class Workdir:
    """A run directory, locked for this run while the context is entered; the first of its processes alone writes.

    Args:
      path: the folder; made if it is not there.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).absolute()
        self._lock = Lock(self.path / ".train.lock")

    def __enter__(self) -> Workdir:
        processes.group().lead(self._take)
        return self

    def _take(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir={self.path} cannot be made ({error.strerror}): name another folder.") from None
        with writing(self._lock.path):
            self._lock.acquire(f"workdir {self.path}")

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def check(self) -> None:
        """Makes sure that what is written goes where the run has begun.

        Raises:
          StorageError: the folder has been unmounted, moved or replaced.
        """
        if processes.group().leads and not self._lock.held():
            raise StorageError(f"{self.path} is no longer the folder that this run writes to (unmounted, or moved).")

    def claim(self, config: Mapping[str, Any], *, force: bool = False) -> None:
        """Writes ``config.json``, or checks that the run there has the same config, but for :data:`WHERE` it computes.

        Args:
          config: the config as JSON would hold it.
          force: go on with another config.

        Raises:
          UserError: the folder holds work of another config, or checkpoints without a config; or a process of this run
            does not see it.
        """
        group = processes.group()
        group.lead(lambda: self._claim(config, force))
        blind = [i for i, seen in enumerate(group.gather((self.path / CONFIG).exists())) if not seen]
        if blind:
            raise UserError(f"--workdir={self.path} is not there for process {blind[0]}: name a folder that all share.")

    def _claim(self, config: Mapping[str, Any], force: bool) -> None:
        path = self.path / CONFIG
        if path.exists():
            whole = _changed(_read_json(path), config)
            elsewhere = {key: pair for key, pair in whole.items() if key.partition(".")[0] in WHERE}
            changed = {key: pair for key, pair in whole.items() if key not in elsewhere}
            work = self._holds_work()
            if changed and not force and work:
                raise UserError(
                    f"{self.path} holds a run with another config ({configs.describe(changed)}). Name another "
                    "--workdir, or go on from its last checkpoint with the new config: --force."
                )
            if elsewhere and work:
                say(f"going on elsewhere ({configs.describe(elsewhere)}): the numbers stay the same up to rounding")
            if changed:
                (self.path / RESULT).unlink(missing_ok=True)
        elif (self.path / CHECKPOINTS).exists() or (self.path / METRICS).exists():
            raise UserError(f"{self.path} holds a run without its {CONFIG}: name another --workdir.")
        with writing(path):
            write_atomically(path, configs.to_json(config))

    def _holds_work(self) -> bool:
        """Whether there is anything to lose: a run that ended on its first mistake leaves only its config."""
        metrics, checkpoints = self.path / METRICS, self.path / CHECKPOINTS
        rows = metrics.exists() and metrics.stat().st_size > 0
        return rows or (checkpoints.is_dir() and any(checkpoints.iterdir())) or (self.path / RESULT).exists()

    def result(self) -> dict[str, Any] | None:
        """What a finished run has left, or None."""
        path = self.path / RESULT
        return processes.group().lead(lambda: _read_json(path) if path.exists() else None)

    def write_result(self, metrics: Mapping[str, float], steps: int, wall_s: float) -> None:
        """Marks the run as finished."""
        row = {"metrics": dict(metrics), "steps": steps, "wall_s": round(wall_s, 3), "versions": versions()}
        write_atomically(self.path / RESULT, dump_row(row) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide what a run computes."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def use_compilation_cache(folder: Path) -> None:
    """Lets compiled programs survive the process, so that a resumed run starts fast; the user's own choice stays."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: pair for key, pair in configs.diff(old, new).items() if key.rpartition(".")[2] not in HARMLESS}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it, or name another --workdir.") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged (it holds no JSON object): restore it, or name another --workdir.")
    return found
