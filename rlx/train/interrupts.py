"""A gentle end: a signal or a file lets the current step finish, and the run saves a checkpoint before it goes."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

STOP = "STOP"
"""Name of the file in a run directory that asks the run to save and stop."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""SIGTERM is what Kubernetes, SLURM and clouds send before they take a machine away; SIGUSR1 what SLURM sends ahead of
a time limit (``sbatch --signal=USR1@120``)."""


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
    """While the context is entered, :data:`SIGNALS` only set ``requested``; a second Ctrl-C interrupts at once.

    In a thread other than the main one, which cannot handle signals, they do what they did.

    Args:
      file: asks for the same by being there, and is removed once it has been obeyed.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._requested = ""
        self._old: dict[int, Any] = {}

    @property
    def requested(self) -> str:
        """The name of the signal that has come, or of the file that is there; else an empty string."""
        if not self._requested and self.file is not None and self.file.exists():
            self._requested = self.file.name
        return self._requested

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        if self.file is not None and self._requested == self.file.name:
            self.file.unlink(missing_ok=True)

    def _note(self, number: int, frame: object) -> None:
        if number == signal.SIGINT and self._requested:
            raise KeyboardInterrupt
        self._requested = signal.Signals(number).name
