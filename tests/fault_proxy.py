"""A TCP proxy in front of a real server that can cut, stall, refuse and slow down its connections."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class FaultProxy:
    """Forwards connections on ``port`` to a port of this machine, as told by its attributes.

    Attributes:
        refuse: Hang up on newcomers.
        stalled: Carry no byte in either direction while set; connections look alive (half-open).
        delay: Seconds that each piece takes.
        accepted: How many connections came.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.refuse = False
        self.delay = 0.0
        self.accepted = 0
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def stalled(self) -> bool:
        """Whether nothing is carried."""
        return not self._open.is_set()

    @stalled.setter
    def stalled(self, value: bool) -> None:
        if value:
            self._open.clear()
        else:
            self._open.set()

    def cut(self) -> None:
        """Reset all connections."""
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self) -> None:
        """End it."""
        self._server.close()
        self._open.set()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.accepted += 1
            if self.refuse:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                time.sleep(self.delay)
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
