"""Progress of a long loop: rate, time left, and a note, on a terminal or now and then in a log."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO


class Progress:
    """Shows ``label done/total rate ETA note`` on stderr.

    On a terminal one line is rewritten, at most ten times a second; elsewhere a line is printed every
    `interval` seconds, so that log files stay short. The first and the last state are always shown.

    Args:
      total: number of units (steps, runs) of the whole loop.
      done: units that were finished before this process began; they do not count for the rate.
      label: what the loop is called.
      unit: what is counted, for the rate.
      interval: seconds between lines where the stream is not a terminal.
      stream: stderr unless given.
      clock: seconds, increasing.
    """

    def __init__(
        self,
        total: int,
        *,
        done: int = 0,
        label: str = "",
        unit: str = "step",
        interval: float = 10.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total, self.done, self.label, self.unit = total, done, label, unit
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._interval = 0.1 if self._terminal else interval
        self._clock = clock
        self._start, self._start_done = clock(), done
        self._shown_at: float | None = None
        self._shown: tuple[int, str] | None = None
        self._note = ""

    def update(self, done: int, note: str = "") -> None:
        """Sets the number of finished units, and a note such as the current loss."""
        self.done, self._note = done, note
        now = self._clock()
        if self._shown_at is None or now - self._shown_at >= self._interval or done >= self.total:
            self._show(now)

    def close(self) -> None:
        """Shows the last state and ends the line."""
        if self._shown_at is not None:
            self._show(self._clock())
            if self._terminal:
                self._stream.write("\n")
                self._stream.flush()
            self._shown_at = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def line(self) -> str:
        """The text that is shown."""
        elapsed = self._clock() - self._start
        count = self.done - self._start_done
        parts = [self.label, f"{self.done}/{self.total}"]
        if count > 0 and elapsed > 0:
            rate = count / elapsed
            parts.append(f"{rate:.3g} {self.unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s/{self.unit}")
            remaining = self.total - self.done
            parts.append(f"ETA {duration(remaining / rate)}" if remaining > 0 else f"took {duration(elapsed)}")
        return "  ".join(part for part in [*parts, self._note] if part)

    def _show(self, now: float) -> None:
        text = self.line()
        if self._terminal:
            text = text[: shutil.get_terminal_size().columns - 1]
            self._stream.write(f"\r{text}\x1b[K")
        elif (self.done, self._note) != self._shown:
            self._stream.write(f"{text}\n")
        self._stream.flush()
        self._shown_at, self._shown = now, (self.done, self._note)


def duration(seconds: float) -> str:
    """A readable length of time.

    >>> duration(42), duration(61), duration(3 * 3600 + 5 * 60)
    ('42s', '1m01s', '3h05m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
