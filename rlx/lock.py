"""Locks that die with their holder: ``flock`` on a file that names the holder."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from pathlib import Path

from rlx.errors import UserError


class Lock:
    """An exclusive lock on a file.

    The kernel drops it when the last process that inherited the descriptor ends, so a killed holder leaves no stale
    lock behind. The file's text names the holder, for the message to those who come second.

    Args:
      path: the lock file; it stays, empty of meaning, when the lock is released.
    """

    def __init__(self, path: Path):
        self.path = path
        self.descriptor = -1

    def acquire(self, what: str, patience: float = 0.0, even_alive: bool = False) -> Lock:
        """Takes the lock, or refuses.

          If the holder that the file names is dead, its children are on their way out: they get `patience` seconds,
          and with `even_alive` a living holder gets them too.

          Args:
            what: what the lock protects, for the message.
            patience: seconds to wait.
        even_alive: the lock is held for moments only, so that waiting for a living holder makes sense.

          Raises:
            UserError: a living process holds the lock.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        deadline, told = time.monotonic() + patience, even_alive
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                if (_alive(holder) and not even_alive) or time.monotonic() >= deadline:
                    os.close(descriptor)
                    raise UserError(
                        f"{what} is in use by {holder or 'another process'}: wait for its end, or stop it."
                    ) from None
                if not told:
                    print(f"waiting for the children of {holder}, which has died, to stop", file=sys.stderr)
                told = True
                time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        self.descriptor = descriptor
        return self

    def held(self) -> bool:
        """Whether the file that is locked is the one at its path: not so after a disk or a folder has gone."""
        try:
            return self.descriptor >= 0 and os.path.samestat(os.fstat(self.descriptor), os.stat(self.path))
        except OSError:
            return False

    def release(self) -> None:
        """Gives the lock back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _alive(holder: str) -> bool:
    """Whether the process that a lock names may still run; one on another host is taken to."""
    words = holder.split()
    if len(words) != 4 or words[3] != socket.gethostname():
        return bool(holder)
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
