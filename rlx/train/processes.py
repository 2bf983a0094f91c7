"""Several processes as one run: how they are started, what they agree on, and how all end when one does.

A run has one process unless it is told otherwise. With several, ``jax.distributed`` makes one mesh of all their
devices, and every process runs the same program on it, with its share of the data. The first one alone writes files.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

import jax
import numpy as np

from rlx import config as configs
from rlx.errors import UserError
from rlx.train.hub import Hub, Member
from rlx.train.interrupts import Stopped
from rlx.train.process_options import ABOUT, OPTION, OPTIONS, Plan, plan_of
from rlx.train.relay import Relay

__all__ = ["ABOUT", "OPTIONS", "Group", "Plan", "check_same", "check_started", "group", "plan_of", "started", "stderr"]

GRACE = 2.0  # seconds that a process has to end by itself when another has
ADDRESS = 256  # bytes


class Group:
    """The processes of a run, as one of them sees them.

    Attributes:
      index: of this process.
      count: of all.
    """

    def __init__(self, member: Member | None = None, hub: Hub | None = None, relay: Relay | None = None):
        self.member, self.hub, self.relay = member, hub, relay
        self.index, self.count = (member.index, member.count) if member else (0, 1)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def gather(self, value: Any) -> list[Any]:
        """What every process has to say, as JSON data, in their order."""
        return self.member.gather(value) if self.member else [value]

    def barrier(self) -> None:
        """Waits until all processes are here."""
        self.gather(None)

    def lead(self, function: Callable[[], Any]) -> Any:
        """Calls a function in the first process alone; all get what it returns (JSON data), or its ``UserError``."""
        if self.member is None:
            return function()
        said: dict[str, Any] = {}
        if self.leads:
            try:
                said = {"value": function()}
            except UserError as error:
                self.gather({"error": str(error)})
                raise
        said = self.gather(said)[0]
        if "error" in said:
            raise UserError(said["error"])
        return said["value"]

    def first(self, function: Callable[[], Any]) -> Any:
        """Calls a function in the first process, then in all others, which find what it has left behind."""
        found = function() if self.leads else None
        self.barrier()
        return found if self.leads else function()


_group = Group()
_ending = threading.Event()
"""Set where this process ends in its own words."""


def group() -> Group:
    """The processes of this run."""
    return _group


def stderr() -> TextIO:
    """Where progress is shown: of several processes, the first one shows it."""
    return sys.stderr if _group.leads else io.StringIO()


@contextmanager
def started(plan: Plan | None) -> Iterator[Group]:
    """Starts this process among the others, and ends it with them; whatever ends one of them ends all."""
    global _group
    if plan is None:
        yield _group
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM
    _group = _explicit(plan) if plan.coordinator else _found(plan)
    try:
        with _quiet(_group):
            yield _group
            _leave(_group)
    except Stopped:
        _leave(_group)
        raise
    except BaseException as error:
        _end(_group, error)


def _explicit(plan: Plan) -> Group:
    """The first process listens at the coordinator's port; when all are there, jax starts at another one."""
    assert plan.coordinator is not None  # the caller has looked
    host, port = plan.coordinator
    hub, times = None, {"patience": plan.start_timeout, "silence": plan.heartbeat_timeout}
    if plan.index == 0:
        server = _listen(port)
        with _listen(0) as other:
            free = other.getsockname()[1]
        hub = Hub(server, plan.count, welcome=free, **times)
    try:
        member = Member((host, port), plan.index, plan.count, over=_over, **times)
    except UserError:
        threading.Event().wait(GRACE if hub else 0)  # the hub tells the others
        raise
    relay = None if hub else Relay((host, member.welcome))
    _initialize(plan, relay.address if relay else f"localhost:{member.welcome}", plan.count, plan.index)
    return Group(member, hub, relay)


def _found(plan: Plan) -> Group:
    """jax finds the others; then they meet at a port of the first one."""
    from jax.experimental import multihost_utils

    try:
        _initialize(plan)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"--distributed: jax finds no TPU pod, SLURM or Open MPI job here ({reason}): give {OPTION}."
        ) from None
    count, index = jax.process_count(), jax.process_index()
    server = _listen(0) if index == 0 else None
    text = np.zeros(ADDRESS, np.uint8)
    if server:
        own = f"{_own_address()}:{server.getsockname()[1]}".encode()
        text[: len(own)] = list(own)
    host, _, port = bytes(np.asarray(multihost_utils.broadcast_one_to_all(text))).rstrip(b"\0").decode().rpartition(":")
    times = {"patience": plan.start_timeout, "silence": plan.heartbeat_timeout}
    hub = Hub(server, count, **times) if server else None
    return Group(Member((host, int(port)), index, count, over=_over, **times), hub)


def _own_address() -> str:
    """Where other machines find this one: many call themselves 127.0.1.1."""
    name = socket.gethostname()
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.connect(("192.0.2.1", 9))  # sends nothing: it says by which way it would go
        return wire.getsockname()[0]
    return name


def _initialize(plan: Plan, address: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Starts jax's own service; its patience ends after ours, which has the better words."""
    jax.distributed.initialize(
        address,
        count,
        index,
        initialization_timeout=int(plan.start_timeout) + 10,
        heartbeat_timeout_seconds=2 * int(plan.heartbeat_timeout) + 10,
        shutdown_timeout_seconds=int(plan.heartbeat_timeout) + 10,
    )


def _listen(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise UserError(f"port {port} of this machine cannot be used ({error.strerror}): name another one.") from None


def _over(reason: str) -> None:
    """Ends this process, which may be waiting for one that has gone and will wait for ever."""
    if _ending.wait(GRACE):  # what has ended the other one may be ending this one, too
        return
    print(f"error: {reason}; the same command for all processes goes on from the last checkpoint", file=sys.stderr)
    _exit(1)


def _leave(group: Group) -> None:
    if group.member:
        group.member.leave()
    jax.distributed.shutdown()
    for server in (group.relay, group.hub):
        if server:
            server.close()


def _end(group: Group, error: BaseException) -> NoReturn:
    """Ends this process and, with it, all others, without waiting for them."""
    if isinstance(error, UserError | SystemExit | KeyboardInterrupt):
        _ending.set()
    if isinstance(error, SystemExit):
        reason, code = "exit", error.code if isinstance(error.code, int) else 1
    elif isinstance(error, UserError):
        reason, code = str(error), 2
        print(f"error: {error}", file=sys.stderr, flush=True)
    elif isinstance(error, KeyboardInterrupt):
        reason, code = "interrupted", 130
    else:
        _ending.wait(2 * GRACE)  # where another one has gone, that is the reason, and ends this one
        traceback.print_exception(error)
        reason, code = f"{type(error).__name__}: {error}", 1
    if group.member:
        group.member.fail(reason.split("\n")[0])
        threading.Event().wait(GRACE if group.leads else 0.1)  # the hub tells the others
    _exit(code)


def _exit(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, OSError):  # it may be closed
            stream.flush()
    os._exit(code)


@contextmanager
def _quiet(group: Group) -> Iterator[None]:
    """Only errors come from processes other than the first; libraries write to the first one's output, too."""
    sys.stdout.flush()
    old, kept, nowhere = sys.stdout, os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    sys.stdout = os.fdopen(os.dup(kept if group.leads else nowhere), "w")
    try:
        yield
    finally:
        sys.stdout.close()
        sys.stdout = old
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def check_started() -> None:
    """Makes sure that the processes of jax are those of the run.

    Raises:
      UserError: they do not know of each other.
    """
    if jax.process_count() != _group.count:
        raise UserError(
            f"jax has {jax.process_count()} processes that know nothing of this run: start them by the options of "
            "python -m rlx.train, or within rlx.train.processes.started(plan)."
        )


def check_same(own: Group, config: Mapping[str, Any]) -> None:
    """Makes sure that all processes have the same config.

    Raises:
      UserError: they have not, with what differs, in all of them.
    """
    hashes = own.gather(configs.config_hash(config))
    if len(set(hashes)) == 1:
        return
    whole = own.gather(dict(config))
    other = next(i for i, found in enumerate(hashes) if found != hashes[0])
    told = configs.describe(configs.diff(whole[0], whole[other]))
    raise UserError(f"process {other} has another config than process 0 ({told}): give all the same.")
