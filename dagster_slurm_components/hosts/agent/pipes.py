"""Frames over a Unix socket."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Any

from dagster_slurm_components.hosts.satellite.protocol import FrameError, encode_frame, read_frame


class SocketPipe:
    """A pipe over a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes; none at the end."""
        return self._socket.recv(size)

    def write(self, data: bytes) -> None:
        """Write all of it."""
        self._socket.sendall(data)

    def close(self) -> None:
        """End the connection, waking whoever reads it."""
        with contextlib.suppress(OSError):  # ended already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def say(self, header: Mapping[str, Any]) -> None:
        """Send one frame without a blob."""
        self.write(encode_frame(dict(header)))

    def hear(self) -> dict[str, Any]:
        """Return the next frame's header.

        Raises:
            OSError: The other side has ended.
        """
        try:
            frame = read_frame(self.read)
        except FrameError as error:
            raise ConnectionResetError(str(error)) from error
        if frame is None:
            raise ConnectionResetError("the other side ended")
        return frame[0]
