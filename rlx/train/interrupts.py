"""A gentle end: SIGTERM and Ctrl-C let the current step finish, and the run saves a checkpoint before it goes."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Stopped(SystemExit):
    """The run saved a checkpoint and stopped before its end; left alone, it ends the process with exit code 0.

    Attributes:
      message: what to tell the user.
    """

    def __init__(self, message: str):
        super().__init__(0)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Interrupts:
    """While the context is entered, SIGTERM and SIGINT only set ``requested``; a second Ctrl-C interrupts at once.

    In a thread other than the main one, which cannot handle signals, nothing changes.
    """

    def __init__(self) -> None:
        self.requested = ""
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if number == signal.SIGINT and self.requested:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
