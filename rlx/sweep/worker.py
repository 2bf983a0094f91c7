"""Runs single runs of a sweep: in this process (`execute`), or one after another as a child of the pool (`main`).

Runs that share compiled programs go to the same child. It reads run ids from stdin, one a line, and answers each with
a line of JSON on stdout; what a run prints goes to the ``log.txt`` of its directory. If stdin closes during a run, the
pool has died: the child stops gently, as after SIGTERM.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rlx import config as configs
from rlx.errors import UserError
from rlx.lock import Lock
from rlx.report.rows import dump_row, write_atomically
from rlx.sweep.plan import ERROR, RESULT, Plan, Run, make_plan

GRACE_S = 60.0  # from the wish to stop until a process is ended by force: time to save a checkpoint


def execute(run: Run, module: ModuleType, folder: Path) -> str | None:
    """Runs `run` in `folder` unless it is finished; returns what went wrong, or None.

    A config file that defines ``run(config, workdir)`` is run by that function, which returns the final metrics; all
    others by the trainer. A directory with ``result.json`` is finished.
    """
    with Lock(folder / ".lock").acquire(f"run {run.id}"):
        if (folder / RESULT).exists():
            return None
        (folder / ERROR).unlink(missing_ok=True)
        start = time.monotonic()
        try:
            metrics = _entry(run, module, folder)(run.config, folder)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return str(error)
        except Exception as error:
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
        if not (folder / RESULT).exists():
            if not isinstance(metrics, Mapping):
                return f"the run ended without {RESULT} and returned no metrics"
            _write_result(folder, metrics, time.monotonic() - start)
    return None


def _entry(run: Run, module: ModuleType, folder: Path) -> Callable[[Any, Path], Any]:
    own = getattr(module, "run", None)
    if callable(own):
        write_atomically(folder / "config.json", configs.to_json(run.config))
        return own
    from rlx.train.main import train  # the trainer needs flax, optax and orbax; a config's own run may not

    return train


def _write_result(folder: Path, metrics: Mapping[str, Any], wall_s: float) -> None:
    versions = {"python": platform.python_version()}
    for name in ("jax", "jaxlib", "rlx"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    row = {"metrics": dict(metrics), "wall_s": round(wall_s, 3), "versions": versions}
    write_atomically(folder / RESULT, dump_row(row) + "\n")


def cache_environment(workdir: Path) -> dict[str, str]:
    """Variables that make the runs share compiled programs through a directory; those already set stay."""
    wanted = {
        "JAX_COMPILATION_CACHE_DIR": str(workdir.resolve() / ".cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return {key: value for key, value in wanted.items() if key not in os.environ}


def use_cache(workdir: Path) -> None:
    """Does for this process, which has read jax's variables already, what `cache_environment` does for a child."""
    import jax

    environment = cache_environment(workdir)
    os.environ.update(environment)
    for name, value in environment.items():
        kind = str if name == "JAX_COMPILATION_CACHE_DIR" else int if "BYTES" in name else float
        jax.config.update(name.lower(), kind(value))


def main(argv: Sequence[str]) -> int:
    """The child of a pool; its only argument is the JSON of `make_plan`'s arguments and the work directory."""
    arguments = json.loads(argv[0])
    report = os.fdopen(os.dup(1), "w", buffering=1)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool passes on what the terminal says
    jobs: queue.Queue[str | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_read_jobs, args=(jobs, busy), daemon=True).start()
    workdir = Path(arguments["workdir"])
    plan: Plan | None = None
    while (job := jobs.get()) is not None:
        busy.set()
        (workdir / job).mkdir(parents=True, exist_ok=True)
        with _redirected(workdir / job / "log.txt"):
            try:
                plan = plan or make_plan(arguments["spec"], arguments["sweep"], arguments["overrides"])
                problem = _execute_job(job, plan, workdir)
            except UserError as error:
                problem = str(error)
        busy.clear()
        report.write(json.dumps({"run": job, "problem": problem}) + "\n")
        if problem is not None:
            return 1  # a failed run may have left memory behind: the next one gets a new process
    return 0


def _execute_job(job: str, plan: Plan, workdir: Path) -> str | None:
    run = next((run for run in plan.runs if run.id == job), None)
    if run is None:
        return f"{plan.spec} has changed since the sweep began: it no longer gives the run {job}"
    return execute(run, configs.load_module(plan.spec), workdir / job)


def _read_jobs(jobs: queue.Queue[str | None], busy: threading.Event) -> None:
    for line in sys.stdin:
        jobs.put(line.strip())
    jobs.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os._exit(1)


def _stop(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


@contextlib.contextmanager
def _redirected(path: Path) -> Iterator[None]:
    """Appends stdout and stderr, those of compiled code included, to a file."""
    saved = os.dup(1), os.dup(2)
    with open(path, "ab", buffering=0) as log:
        log.write(time.strftime("---- %Y-%m-%d %H:%M:%S\n").encode())
        _point(log.fileno(), log.fileno())
        try:
            yield
        finally:
            _point(*saved)
            for descriptor in saved:
                os.close(descriptor)


def _point(stdout: int, stderr: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
