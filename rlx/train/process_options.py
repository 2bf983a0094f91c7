"""What the command line, or the environment, says of the processes of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from rlx.errors import UserError

OPTIONS = """[--coordinator=HOST:PORT] [--num_processes=N] [--process_id=I] [--distributed]
  [--start_timeout=300] [--heartbeat_timeout=60]"""
ABOUT = """Several processes, on as many machines as you like: the same command in each, but for --process_id, which is
0 to N - 1. HOST:PORT is a free port of the machine of process 0. On a TPU pod, under SLURM or Open MPI, --distributed
finds all of this out. They have --start_timeout seconds to come together; all end when one has, or when it has given no
sign of life for --heartbeat_timeout seconds.
"""
"""For the usage text of a command."""
ENVIRONMENT = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}
"""Option -> the variable that stands for it."""
DEFAULTS = {"start_timeout": 300.0, "heartbeat_timeout": 60.0}
OPTION = ", ".join(f"--{name}" for name in ENVIRONMENT)


class Plan(NamedTuple):
    """How a process finds the others; ``coordinator`` None: jax finds out."""

    coordinator: tuple[str, int] | None
    count: int
    index: int
    start_timeout: float
    heartbeat_timeout: float


def plan_of(options: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Plan | None:
    """What the options of a command say of processes; None where there is but one.

    Raises:
      UserError: options that are missing or impossible.

    >>> plan_of({"coordinator": "localhost:1234", "num_processes": "2", "process_id": "2"}, {})
    Traceback (most recent call last):
    rlx.errors.UserError: --process_id=2 must be one of 0 to 1 (--num_processes=2).
    """
    environment = os.environ if environment is None else environment
    times = {name: _number(name, options.get(name) or default) for name, default in DEFAULTS.items()}
    if options.get("distributed"):
        return Plan(None, 0, 0, **times)
    given = {name: options.get(name) or environment.get(variable) for name, variable in ENVIRONMENT.items()}
    if not any(given.values()):
        return None
    for name, value in given.items():
        if not value:
            raise UserError(f"--{name} is missing (or {ENVIRONMENT[name]}): several processes need all of {OPTION}.")
    host, _, port = str(given["coordinator"]).rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"--coordinator={given['coordinator']} must be HOST:PORT.")
    count, index = (int(_number(name, given[name], int)) for name in ("num_processes", "process_id"))
    if count < 1 or not 0 <= index < count:
        raise UserError(f"--process_id={index} must be one of 0 to {count - 1} (--num_processes={count}).")
    return Plan((host.strip("[]"), int(port)), count, index, **times)


def _number(name: str, text: Any, kind: type = float) -> float:
    try:
        value = kind(text)
    except ValueError:
        raise UserError(f"--{name} takes a number, not {text!r}.") from None
    if kind is float and value <= 0:
        raise UserError(f"--{name} must be above 0, not {text}.")
    return value
