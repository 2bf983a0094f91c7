"""A local pool: child processes that run the unfinished runs of a sweep, and stop gently when they are told to."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlx.lock import Lock
from rlx.report.progress import Progress
from rlx.sweep.plan import Plan, Run, program_key, status, write_error
from rlx.sweep.worker import GRACE_S, cache_environment

LOG_LINES = 8


class _Child:
    """A worker process, the run it is at, and the programs that it has compiled."""

    def __init__(self, arguments: str, environment: Mapping[str, str], lock: Lock):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rlx.sweep.worker", arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C reaches the pool alone, which passes it on once
            pass_fds=(lock.descriptor,),  # the sweep stays locked until the last child has ended
        )
        self.run: Run | None = None
        self.key: str | None = None

    def give(self, run: Run, key: str) -> None:
        assert self.process.stdin is not None
        self.run, self.key = run, key
        try:
            self.process.stdin.write(f"{run.id}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            return  # it has died: its stdout says so next

    def close(self) -> int:
        """Lets it end, and returns its exit status."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        code = self.process.wait()
        self.process.stdout.close()
        return code


class Pool:
    """Runs what is unfinished of a plan.

    Args:
      plan: the sweep.
      workdir: its directory.
      arguments: `make_plan`'s arguments, for the children.
      lock: the sweep's lock, held.
      workers: number of processes at a time.
      on_finish: called after every run that ended, with its problem or None.
    """

    def __init__(
        self,
        plan: Plan,
        workdir: Path,
        arguments: Mapping[str, Any],
        lock: Lock,
        workers: int,
        on_finish: Callable[[Run, str | None], None],
    ):
        self._workdir, self._lock, self._workers, self._on_finish = workdir, lock, workers, on_finish
        self._arguments = json.dumps({**arguments, "workdir": str(workdir)})
        self._pending: dict[str, list[Run]] = {}
        for run in plan.runs:
            if status(run, workdir) != "finished":
                self._pending.setdefault(program_key(run), []).append(run)
        self._children: dict[int, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._total = len(plan.runs)
        self._finished = self._total - sum(len(runs) for runs in self._pending.values())
        self._environment = cache_environment(workdir)
        if workers > 1 and "XLA_PYTHON_CLIENT_PREALLOCATE" not in os.environ:
            self._environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the children share an accelerator
        self.failures: dict[str, str] = {}
        self._signal: int | None = None
        self._deadline = float("inf")

    def run(self) -> int | None:
        """Works until nothing is left; returns the signal that stopped it, or None."""
        handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            with Progress(self._total, done=self._finished, label="sweep", unit="run") as progress:
                while self._fill() or self._children:
                    progress.update(self._finished + len(self.failures), self._note())
                    self._wait()
                progress.update(self._finished + len(self.failures), self._note())
        finally:
            for child in self._children.values():  # only after an error in the pool itself
                child.process.terminate()
            self._selector.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self._signal

    def _fill(self) -> bool:
        """Gives every free place a run; whether a child is at work."""
        while self._signal is None and self._pending and len(self._children) < self._workers:
            child = _Child(self._arguments, self._environment, self._lock)
            assert child.process.stdout is not None
            self._children[child.process.stdout.fileno()] = child
            self._selector.register(child.process.stdout, selectors.EVENT_READ)
            self._assign(child)
        return bool(self._children)

    def _assign(self, child: _Child) -> None:
        """The next run: of the programs that the child knows, else of those that the fewest others are at."""
        taken = [other.key for other in self._children.values() if other is not child]
        keys = sorted(self._pending, key=lambda key: (taken.count(key), -len(self._pending[key])))
        key = child.key if child.key in self._pending else keys[0]
        run = self._pending[key].pop(0)
        if not self._pending[key]:
            del self._pending[key]
        child.give(run, key)

    def _wait(self) -> None:
        for event, _ in self._selector.select(timeout=1.0):
            child = self._children[event.fd]
            assert child.process.stdout is not None
            line = child.process.stdout.readline()
            if line:
                self._answer(child, json.loads(line))
            else:
                self._ended(event.fd)
        if time.monotonic() > self._deadline:
            self._kill(signal.SIGKILL)

    def _answer(self, child: _Child, answer: Mapping[str, Any]) -> None:
        assert child.run is not None
        run, child.run = child.run, None
        self._settle(run, answer["problem"])
        if answer["problem"] is None and self._pending and self._signal is None:
            self._assign(child)
        elif child.process.stdin is not None:
            child.process.stdin.close()

    def _ended(self, descriptor: int) -> None:
        child = self._children.pop(descriptor)
        assert child.process.stdout is not None
        self._selector.unregister(child.process.stdout)
        code = child.close()
        if child.run is not None:
            what = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            self._settle(child.run, f"its process ended with {what}")

    def _settle(self, run: Run, problem: str | None) -> None:
        if status(run, self._workdir) == "finished":
            self._finished += 1
            problem = None
        elif self._signal is not None:
            return  # stopped, not failed: the next call goes on
        else:
            self.failures[run.id] = problem or "it left no result"
            write_error(self._workdir / run.id, self.failures[run.id])
        self._on_finish(run, problem)

    def _on_signal(self, number: int, frame: object) -> None:
        first = self._signal is None
        self._signal = number
        self._deadline = time.monotonic() + GRACE_S if first else 0.0
        self._kill(signal.SIGTERM if first else signal.SIGKILL)

    def _kill(self, number: int) -> None:
        for child in list(self._children.values()):
            if child.process.poll() is None:
                child.process.send_signal(number)

    def _note(self) -> str:
        failed = f"{len(self.failures)} failed" if self.failures else ""
        at = " ".join(child.run.id for child in self._children.values() if child.run is not None)
        return "  ".join(part for part in (failed, f"at {at}" if at else "") if part)


def last_lines(path: Path, count: int = LOG_LINES) -> Sequence[str]:
    """The last lines of a log, decoded as well as it goes."""
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").rstrip().split("\n")[-count:]
