"""Where the processes of a run meet: who is there, what each of them says, and who has gone.

Process 0 runs the :class:`Hub`; all of them, that one included, are its :class:`Member`s, each by one TCP connection of
JSON lines. Nothing here touches a device: it works before jax starts, while a program runs, and after one has failed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from rlx.errors import UserError

BEATS = 4  # signs of life within the time after which one is missed
PAUSE = 0.2  # seconds between attempts to reach a hub


class Wire:
    """One end of a connection: whole JSON objects out and in.

    Args:
      connection: the socket; ``patience`` seconds without a word are its end.
    """

    def __init__(self, connection: socket.socket, patience: float):
        connection.settimeout(patience)
        self.connection, self.lines = connection, connection.makefile("r", encoding="utf-8", newline="\n")
        self._turn, self._beat = threading.Lock(), patience / BEATS
        self._closed = threading.Event()

    def say(self, **words: Any) -> None:
        """Sends an object; to one who has gone, nothing."""
        try:
            with self._turn:
                self.connection.sendall((json.dumps(words) + "\n").encode())
        except OSError:
            self._closed.set()

    def hear(self) -> dict[str, Any] | None:
        """The next object that is no sign of life; None at the end of the connection.

        Raises:
          TimeoutError: nothing came for too long.
        """
        try:
            for line in self.lines:
                words = json.loads(line)
                if words:
                    return words
        except TimeoutError:
            raise
        except (OSError, ValueError):
            pass
        with contextlib.suppress(OSError):
            self.lines.close()
        return None

    def beat(self) -> None:
        """Gives signs of life until the end."""
        while not self._closed.wait(self._beat):
            self.say()

    def close(self) -> None:
        """Ends the connection."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, ValueError):
            self.lines.close()  # it holds the connection open
        self.connection.close()


class Hub:
    """Waits for all members, passes on what they say, and tells all when one has gone.

    Args:
      server: a socket that listens.
      count: number of members.
      patience: seconds for all to come.
      silence: seconds without a word after which a member is gone.
      welcome: what all are told when all have come.
    """

    def __init__(self, server: socket.socket, count: int, *, patience: float, silence: float, welcome: Any = None):
        self.server, self.count, self.silence, self.welcome = server, count, silence, welcome
        self._wires: dict[int, Wire] = {}
        self._said: dict[str, dict[int, Any]] = {}
        self._turn, self._over, self._reason = threading.Lock(), False, ""
        self._alarm = threading.Timer(patience, self._give_up, [patience])
        self._alarm.daemon = True
        self._alarm.start()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[Wire(connection, self.silence)], daemon=True).start()

    def _serve(self, wire: Wire) -> None:
        threading.Thread(target=wire.beat, daemon=True).start()
        index = None
        try:
            hello = wire.hear()
            if hello and hello.keys() == {"hello", "of"} and (index := self._enter(wire, **hello)) is not None:
                while (words := wire.hear()) is not None:
                    self._heard(index, words)
                self._gone(index, "has ended without a word")
        except TimeoutError:
            if index is not None:
                self._gone(index, f"has given no sign of life for {self.silence:g} s")
        wire.close()

    def _enter(self, wire: Wire, hello: int, of: int) -> int | None:
        refused = ""
        with self._turn:
            if self._reason:
                refused = self._reason
            elif of != self.count:
                refused = f"process 0 was started with --num_processes={self.count}, process {hello} with {of}"
            elif hello in self._wires:
                refused = f"two processes were started with --process_id={hello}"
            else:
                self._wires[hello] = wire
        if refused:
            wire.say(refused=refused)
            self._tell(refused=refused)
            return None
        if len(self._wires) == self.count:
            self._alarm.cancel()
            self._tell(welcome=self.welcome)
        return hello

    def _give_up(self, patience: float) -> None:
        absent = [str(i) for i in range(self.count) if i not in self._wires]
        if absent:
            these = f"process{'es' if len(absent) > 1 else ''} {', '.join(absent)} of {self.count}"
            self._tell(refused=f"{these} did not come within {patience:g} s (--start_timeout)")

    def _heard(self, index: int, words: dict[str, Any]) -> None:
        if "failed" in words:
            self._gone(index, f"has ended: {words['failed']}")
        if "tag" not in words:
            return
        with self._turn:
            said = self._said.setdefault(words["tag"], {})
            said[index] = words["value"]
            if len(said) < self.count:
                return
            del self._said[words["tag"]]
        self._over = self._over or words["tag"] == Member.END
        self._tell(tag=words["tag"], values=[said[i] for i in range(self.count)])

    def _gone(self, index: int, how: str) -> None:
        with self._turn:
            first, self._over = not self._over, True
            self._reason = self._reason or f"process {index} of {self.count} {how}"
        if first:
            self._tell(over=self._reason)

    def _tell(self, **words: Any) -> None:
        for wire in list(self._wires.values()):
            wire.say(**words)

    def close(self) -> None:
        """Ends all connections."""
        self._alarm.cancel()
        self.server.close()
        for wire in self._wires.values():
            wire.close()


class Member:
    """One process at the hub.

    Args:
      address: host and port of the hub.
      index: number of the process.
      count: number of processes.
      patience: seconds until the hub must have been reached, and all have come.
      silence: seconds without a word after which the hub is gone.
      over: called, by a thread of its own, with the reason why the run cannot go on.

    Raises:
      UserError: the hub is not there, or refuses.
    """

    END = "end"

    def __init__(
        self,
        address: tuple[str, int],
        index: int,
        count: int,
        *,
        patience: float,
        silence: float,
        over: Callable[[str], None],
    ):
        self.index, self.count = index, count
        self._over, self._leaving, self._number = over, False, 0
        self._said: dict[str, list[Any]] = {}
        self._news = threading.Condition()
        self._wire = Wire(_reach(address, patience), silence)
        threading.Thread(target=self._wire.beat, daemon=True).start()
        self._wire.say(hello=index, of=count)
        words = self._first(silence)
        if "refused" in words:
            self._wire.close()
            raise UserError(f"{words['refused']}: start all of them, with the same command but for --process_id.")
        self.welcome: Any = words.get("welcome")
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _first(self, silence: float) -> dict[str, Any]:
        try:
            words = self._wire.hear()
        except TimeoutError:
            words = {"over": f"the coordinator gave no sign of life for {silence:g} s"}
        words = words or {"over": "the coordinator has ended without a word"}
        return {"refused": words["over"]} if "over" in words else words

    def _listen(self) -> None:
        reason = "process 0 has ended without a word"
        try:
            while (words := self._wire.hear()) is not None:
                if "over" in words:
                    reason = words["over"]
                    break
                with self._news:
                    self._said[words["tag"]] = words["values"]
                    self._news.notify_all()
        except TimeoutError:
            reason = "process 0 has given no sign of life"
        if not self._leaving:
            self._over(reason)

    def gather(self, value: Any, tag: str = "") -> list[Any]:
        """What every process has said, in their order; each calls it as often, in the same places."""
        self._number += 1
        tag = tag or str(self._number)
        self._wire.say(tag=tag, value=value)
        with self._news:
            self._news.wait_for(lambda: tag in self._said)
            return self._said.pop(tag)

    def leave(self) -> None:
        """Waits for all the others to come to their end, too."""
        self.gather(None, self.END)
        self._leaving = True
        self._wire.close()
        self._listener.join(PAUSE)

    def fail(self, reason: str) -> None:
        """Tells the others that this process ends, and why."""
        self._leaving = True
        self._wire.say(failed=reason)


def _reach(address: tuple[str, int], patience: float) -> socket.socket:
    deadline = time.monotonic() + patience
    while True:
        try:
            return socket.create_connection(address, timeout=max(PAUSE, deadline - time.monotonic()))
        except OSError as error:
            if time.monotonic() + PAUSE >= deadline:
                where, reason = f"{address[0]}:{address[1]}", error.strerror or error
                raise UserError(
                    f"no coordinator answers at {where} within {patience:g} s ({reason}): start process 0 there "
                    "(--process_id=0), or wait longer (--start_timeout=SECONDS)."
                ) from None
        time.sleep(PAUSE)
