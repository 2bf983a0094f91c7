"""Runs a command in several processes of four virtual devices each, and says how each of them ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

DEVICES = "--xla_force_host_platform_device_count"
ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    err: str


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as server:
        server.bind(("", 0))
        return server.getsockname()[1]


def environment(devices: int = 4, **more: str) -> dict[str, str]:
    """That of a process with so many virtual devices."""
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(DEVICES)]
    return {**os.environ, "XLA_FLAGS": " ".join([*flags, f"{DEVICES}={devices}"]), **more}


def coordinated(count: int) -> Callable[[int], dict[str, str]]:
    """What tells each of so many processes of the others; ``rlx.train.processes.started(plan_of({}))`` joins them."""
    own = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": str(count)}
    return lambda index: own | {"JAX_PROCESS_ID": str(index)}


def start(
    command: Sequence[str],
    count: int = 2,
    devices: int = 4,
    told: Callable[[int], dict[str, str]] | None = None,
    **more: str,
) -> list[subprocess.Popen[str]]:
    """Starts ``python *command`` as processes of one run, each with the environment that it is ``told``."""
    told = told or coordinated(count)
    return [
        subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(devices, **told(index), **more),
        )
        for index in range(count)
    ]


def wait(processes: Sequence[subprocess.Popen[str]], limit: float = 300) -> list[Ended]:
    """How they have ended.

    Raises:
      AssertionError: one did not end within ``limit`` seconds; all are killed, and what they wrote is told.
    """
    hung = []
    try:
        told = [process.communicate(timeout=limit) for process in processes]
    except subprocess.TimeoutExpired:
        hung = [process.pid for process in processes if process.poll() is None]
        for process in processes:
            process.kill()
        told = [process.communicate() for process in processes]
    ended = [Ended(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]
    assert not hung, (f"processes {hung} did not end within {limit} s", ended)
    return ended


def run(command: Sequence[str], count: int = 2, devices: int = 4, **more: str) -> list[Ended]:
    """:func:`start` and :func:`wait`.

    Raises:
      AssertionError: one did not end well, with what it wrote.
    """
    ended = wait(start(command, count, devices, **more))
    assert not any(one.code for one in ended), ended
    return ended
