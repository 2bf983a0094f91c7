"""Worker processes of :mod:`experiments.fuzz`: each case within a time and the process within its memory.

A worker reads jobs, one JSON line each, and answers with a line per case. It stops what takes too long by an alarm;
what an alarm cannot reach (a loop inside a library of C or Rust) ends with the worker, and so does whatever kills it:
the parent then names the case and starts another worker behind it.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from experiments import fuzz_targets as targets
from rlx.data import chat

BUSY = 6.0  # times as long as the work may take, its worker may take on a busy machine, or where it sleeps


class Job(NamedTuple):
    """Cases ``start`` to ``stop`` of a kind."""

    kind: str
    seed: int
    start: int
    stop: int


class Limits(NamedTuple):
    """Of a case: seconds of work, and bytes of memory beyond what the worker has before its first."""

    seconds: float
    memory: int


class Hang(BaseException):
    """The alarm."""


# ---------------------------------------------------------------- in the worker


def work(limits: Limits) -> None:
    """Answers jobs until the input ends."""
    chat.SECONDS = min(chat.SECONDS, limits.seconds / 10)
    signal.signal(signal.SIGPROF, _alarm)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    warm: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="rlx-fuzz-") as folder:
        for line in sys.stdin:
            job = Job(**json.loads(line))
            if job.kind not in warm:
                warm.add(job.kind)
                _warm(job, Path(folder), limits)
            before = _reset_peak()
            for number in range(job.start, job.stop):
                print(json.dumps(_case(job, number, Path(folder), limits)), file=answers, flush=True)
            print(json.dumps({"peak": _peak() - before}), file=answers, flush=True)


def _warm(job: Job, folder: Path, limits: Limits) -> None:
    """Imports and caches are not the case's: the unchanged seeds are read first, and then memory is bounded."""
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for variant, contents in targets.seeds_of(job.kind).items():
        for content in contents:
            targets.judge(job.kind, variant, content, folder)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + limits.memory
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def _case(job: Job, number: int, folder: Path, limits: Limits) -> dict[str, Any]:
    variant, content = targets.case(job.kind, job.seed, number)
    begin = time.process_time()  # of all threads: other work on the machine is no fault of the case
    signal.setitimer(signal.ITIMER_PROF, limits.seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome, message = targets.judge(job.kind, variant, content, folder)
    except Hang:
        outcome, message = "hang", "".join(traceback.format_exc().splitlines(keepends=True)[-7:])
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        outcome, message = type(error).__name__, "".join(traceback.format_exc(chain=False).splitlines(True)[-7:])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    seconds = time.process_time() - begin
    if seconds > 0.95 * limits.seconds and outcome in ("accepted", "refused"):  # somebody caught the alarm
        outcome, message = "hang", f"{seconds:.1f} s: {message}"
    return {"number": number, "outcome": outcome, "message": message[:3000], "seconds": seconds}


def _alarm(*args: Any) -> None:
    raise Hang


def _reset_peak() -> int:
    """Forgets the largest resident size so far; returns the present one."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak()
    return _peak()


def _peak() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


# ---------------------------------------------------------------- in the parent


class Worker:
    """A worker process, seen from its parent."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "experiments.fuzz", "--worker", json.dumps(self.limits)]
        root = Path(__file__).parents[1]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._noise, env=environment, text=True
        )
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_pump, args=(self._process.stdout, lines), daemon=True).start()
        self._lines, self._fresh = lines, True

    def run(self, job: Job) -> Iterator[dict[str, Any]]:
        """The answers to a job, in order; a case that took the worker with it is a ``hang`` or a ``crash``."""
        number = job.start
        while number < job.stop:
            self._send(job._replace(start=number))
            while True:
                answer = self._next()
                if "peak" in answer:
                    yield answer
                    return
                if "number" not in answer:  # the worker is gone
                    yield {"number": number, "seconds": self.limits.seconds, **answer}
                    number += 1
                    self.close()
                    self._start()
                    break
                number = answer["number"] + 1
                yield answer

    def _send(self, job: Job) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job._asdict()) + "\n")
            self._process.stdin.flush()
        except OSError:  # the next answer says that it is gone
            pass

    def _next(self) -> dict[str, Any]:
        patience = BUSY * (self.limits.seconds + (60.0 if self._fresh else 10.0))
        self._fresh = False
        try:
            line = self._lines.get(timeout=patience)
        except queue.Empty:
            return {"outcome": "hang", "message": f"no answer within {patience:.0f} s"}
        if line is not None:
            return json.loads(line)
        code = self._process.wait()
        self._noise.seek(max(0, self._noise.seek(0, 2) - 1500))
        said = self._noise.read().decode(errors="replace").strip()
        return {"outcome": "crash", "message": f"exit code {code}: {said}"}

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._noise):
            assert file is not None
            try:
                file.close()
            except OSError:  # unsent words for a process that is gone
                continue


def _pump(stream: Any, lines: queue.Queue) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)
