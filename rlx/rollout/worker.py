"""A reward function in a process of its own: one that hangs, or takes its process down, does not take the run along.

The two speak JSON, a line for each call; ``info`` of an example arrives as JSON gives it back. The process has no
accelerator (``JAX_PLATFORMS=cpu``), and what the function prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from typing import Any

from rlx.rollout.tasks.example import Example

START = 120.0
"""Seconds that the process has for its imports."""
PDEATHSIG, SIGKILL = 1, 9  # of prctl(2): whatever ends the run ends the process


class Failure(Exception):
    """A call has failed; says what the function did."""


class Worker:
    """Calls a function in a process of its own, which starts at the first call and anew after one that failed.

    Args:
      path: of the function, ``module:function``.
      options: keyword arguments of every call.
      timeout: seconds that a call may take.
    """

    def __init__(self, path: str, options: Mapping[str, Any], timeout: float):
        self.path, self.options, self.timeout = path, json.dumps(dict(options)), timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Any = None
        self._read = b""

    def __call__(self, response: Any, example: Example) -> float:
        """The function's answer.

        Raises:
          Failure: it raised, gave no answer in time, or its process died.
        """
        try:
            request = json.dumps([response, list(example)]) + "\n"
        except TypeError as error:
            raise Failure(f"reads an example that JSON cannot hold ({error}): leave timeout_s out") from None
        self._start()
        assert self._process is not None and self._process.stdin is not None  # it has just started
        try:
            self._process.stdin.write(request.encode())
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None
        answer = json.loads(self._line(self.timeout, f"gave no answer within {self.timeout:g} s"))
        if "error" in answer:
            raise Failure(answer["error"])
        return answer["reward"]

    def close(self) -> None:
        """Ends the process."""
        if self._end is not None:
            self._end()
            self._process = self._end = None

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        program = "from rlx.rollout import worker; worker.main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, self.path, self.options],
            env=environment,
            start_new_session=True,  # Ctrl-C is for the run to obey
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._end = weakref.finalize(self, _end, self._process)
        self._read = b""
        self._line(START, f"did not start within {START:g} s")

    def _line(self, seconds: float, late: str) -> bytes:
        """The next line of the process, which is ended where none comes in time."""
        assert self._process is not None and self._process.stdout is not None  # it has started
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._read:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.close()
                    raise Failure(late)
                found = os.read(self._process.stdout.fileno(), 65536)
                if not found:
                    raise self._died()
                self._read += found
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _died(self) -> Failure:
        assert self._process is not None  # it has lived
        self._process.kill()
        code = self._process.wait()
        self.close()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Failure(f"ended its process ({how})")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what was not read by then is lost
                continue


def serve(path: str, options: Mapping[str, Any]) -> None:
    """What the process does: answers calls, until there are none to come."""
    from rlx.rollout.imports import by_name

    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    function = by_name(path, {}, "verifier")
    print("ready", file=channel, flush=True)
    for line in sys.stdin:
        response, example = json.loads(line)
        try:
            answer = {"reward": float(function(response, Example(*example), **options))}
        except Exception as error:  # a user's function may raise anything
            answer = {"error": raised(error)}
        print(json.dumps(answer), file=channel, flush=True)


def raised(error: Exception) -> str:
    """What to say of an exception, in one line.

    >>> raised(KeyError("a"))
    "raised KeyError: 'a'"
    """
    return f"raised {type(error).__name__}: {error}".split("\n")[0]


def main() -> None:
    """The process, which is told the function and its options."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PDEATHSIG, SIGKILL)
    serve(sys.argv[1], json.loads(sys.argv[2]))
