"""A connection to a server that may die, without the sight of its death.

jax aborts a process, with a stack trace, in the moment in which the connection to its coordinator breaks. Through a
relay, that coordinator falls silent instead: the process learns from the hub what has happened, and says so itself.
"""

from __future__ import annotations

import contextlib
import socket
import threading

MOST = 2**16  # bytes at a time


class Relay:
    """Passes bytes on between this machine's own clients and a server elsewhere.

    Args:
      server: host and port.

    Attributes:
      address: ``host:port``, for clients.
    """

    def __init__(self, server: tuple[str, int]):
        self.server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.server)
            except OSError:  # it may be about to start: the client tries again
                near.close()
                continue
            for source, sink, last in ((near, far, True), (far, near, False)):
                threading.Thread(target=_pass, args=(source, sink, last), daemon=True).start()

    def close(self) -> None:
        """Takes no more clients."""
        self._listener.close()


def _pass(source: socket.socket, sink: socket.socket, last: bool) -> None:
    """Passes bytes on until the source ends; only the end of a client is passed on, too.

    A server that is gone takes nothing any more: what its client says is then dropped, and the client none the wiser.
    """
    there = True
    with contextlib.suppress(OSError):
        while content := source.recv(MOST):
            try:
                if there:
                    sink.sendall(content)
            except OSError:
                there = False
    if last:
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
