"""Connections to a port of a job's node, all over one stream: the end of them there, and what both ends share.

``program`` makes a file of it, which is run with the port. A frame with a blob is a piece of the connection ``c``.
``open`` begins one, ``ack`` says that a piece was taken, ``end`` that no more comes, with an ``error`` if it can't be
made, ``stop`` that no more is wanted. Each frame ends with a newline: until there is one Slurm holds output back.
"""

import contextlib
import os
import queue
import socket
import sys
import threading
from functools import partial
from typing import Any, Callable, Dict, Optional

from dagster_slurm_components.hosts.satellite.protocol import encode_frame, read_frame

_PIECE = 32 * 1024
_UNDER_WAY = 16
"""Pieces of one connection that its far end has not taken: who reads slowly must not hold up the others."""


class Relay:
    """One end. ``connect`` makes the connections that the other end asks for; ``told`` hears why one can't be made."""

    def __init__(
        self,
        read: Callable[[int], bytes],
        write: Callable[[bytes], Any],
        connect: Optional[Callable[[], socket.socket]] = None,
        told: Callable[[str], None] = lambda error: None,
    ) -> None:
        self._read, self._write, self._connect, self._told = read, write, connect, told
        self._writing = threading.Lock()
        self._ends: Dict[int, "_End"] = {}

    def serve(self) -> None:
        """Hand on what comes, until nothing more does; raises FrameError where that is within a frame."""
        while True:
            frame = read_frame(self._read)
            if frame is None or not self._read(1):
                return
            header, data = frame
            number = header["c"]
            if header.get("open") and self._connect is not None:
                self._begin(number, self._connect)
                continue
            if "error" in header:
                self._told(header["error"])
            end = self._ends.get(number)
            if end is None:  # it has ended here
                continue
            if "ack" in header:
                end.credit.release()
            elif "stop" in header:
                end.stop()
            else:
                end.came.put(data)

    def add(self, number: int, connection: socket.socket) -> None:
        """Let the other end make a connection, and join it with this one."""
        self._say({"c": number, "open": True})
        self._begin(number, lambda: connection)

    def _begin(self, number: int, connect: Callable[[], socket.socket]) -> None:
        end = self._ends[number] = _End()
        threading.Thread(target=self._carry, args=(number, end, connect), daemon=True).start()

    def _carry(self, number: int, end: "_End", connect: Callable[[], socket.socket]) -> None:
        try:
            with connect() as end.connection:
                sender = threading.Thread(target=self._send, args=(number, end), daemon=True)
                sender.start()
                self._take(number, end)
                sender.join()
        except OSError as error:
            self._say({"c": number, "end": True, "error": str(error)})
        self._ends.pop(number, None)

    def _send(self, number: int, end: "_End") -> None:
        with contextlib.suppress(OSError):
            while end.may_send():
                data = end.connection.recv(_PIECE)
                if not data:
                    break
                self._say({"c": number}, data)
        self._say({"c": number, "end": True})

    def _take(self, number: int, end: "_End") -> None:
        data = end.came.get()
        try:
            while data:
                end.connection.sendall(data)
                self._say({"c": number, "ack": True})
                data = end.came.get()
            end.connection.shutdown(socket.SHUT_WR)
        except OSError:  # nobody listens any more
            self._say({"c": number, "stop": True})

    def _say(self, header: Dict[str, Any], data: bytes = b"") -> None:
        with self._writing, contextlib.suppress(OSError):  # the other end has gone
            self._write(encode_frame(header, data) + b"\n")


class _End:
    """A connection at this end: how much more may be sent of it, and what came for it; nothing is the end of that."""

    connection: socket.socket

    def __init__(self) -> None:
        self.credit = threading.Semaphore(_UNDER_WAY)
        self.came: "queue.Queue[bytes]" = queue.Queue()
        self.stopped = False

    def may_send(self) -> bool:
        """Wait until one more piece may be sent; false if none will be wanted."""
        self.credit.acquire()
        return not self.stopped

    def stop(self) -> None:
        """End what is sent: the other end can't hand it on.

        What has come before can still be read after a shutdown, hence ``stopped``: nobody would say that it was taken.
        """
        self.stopped = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.credit.release()


def main() -> None:
    """Serve on standard input and output, from within a job."""
    port = int(sys.argv[1])
    with os.fdopen(os.dup(1), "wb", 0) as output:
        os.dup2(2, 1)  # nothing else may print there
        Relay(
            partial(os.read, 0), output.write, partial(socket.create_connection, ("127.0.0.1", port))
        ).serve()
    os._exit(0)
