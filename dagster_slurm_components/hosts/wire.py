"""Frames over a Unix socket, and a host's errors in them: what an agent could not do for somebody keeps its meaning."""

import contextlib
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any

from dagster_slurm_components.errors import (
    HostError,
    HostRefusedError,
    HostUnreachableError,
    LoginRequiredError,
    SatelliteError,
)
from dagster_slurm_components.hosts.satellite.protocol import BUSY, FrameError, encode_frame, read_frame

_KINDS: Mapping[str, type[HostError]] = {
    "agent:login": LoginRequiredError,
    "agent:unreachable": HostUnreachableError,
    "agent:refused": HostRefusedError,
    BUSY: HostUnreachableError,
}
"""Kind of error by code, the more special first; every other code is the satellite's own."""


def failure(error: HostError) -> dict[str, Any]:
    """Return an error as the header of a reply."""
    if isinstance(error, SatelliteError):
        code = error.code
    else:
        code = next(code for code, kind in _KINDS.items() if isinstance(error, kind))
    return {"ok": False, "error": error.message, "where": error.where, "hint": error.hint, "code": code}


def error_of(header: Mapping[str, Any], name: str) -> HostError:
    """Return the error that a reply's header tells; ``name`` is where it comes from unless it says so itself."""
    kind = _KINDS.get(header["code"]) or partial(SatelliteError, code=header["code"])
    return kind(header["error"], where=header.get("where") or name, hint=header.get("hint"))


class SocketPipe:
    """A pipe over a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.read = connection.recv
        self.write = connection.sendall

    def close(self) -> None:
        """End the connection, waking whoever reads it."""
        with contextlib.suppress(OSError):  # ended already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def say(self, header: Mapping[str, Any]) -> None:
        """Send one frame without a blob."""
        self.write(encode_frame(dict(header)))

    def hear(self) -> dict[str, Any]:
        """Return the next frame's header; raises OSError when the other side has ended."""
        try:
            frame = read_frame(self.read)
        except FrameError as error:
            raise ConnectionResetError(str(error)) from error
        if frame is None:
            raise ConnectionResetError("the other side ended")
        return frame[0]
