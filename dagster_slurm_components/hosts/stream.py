"""A program on a host that we talk to: a session of its own on the connection that stands already."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple

from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts import wire
from dagster_slurm_components.hosts.base import Host
from dagster_slurm_components.hosts.satellite.protocol import FrameError, encode_frame, read_frame


class Size(NamedTuple):
    """A terminal's, in characters."""

    rows: int
    columns: int


class Stream:
    """The streams of a program, which ends with them; on a terminal of its own if that has a ``size``.

    Attributes:
        code: The exit code once the program has ended; minus a signal's number where one ended it.

    Raises:
        HostError: The host can't be reached, opens no further session, or can't start the program.

    Example:
        >>> with Stream(host, ["cat"]) as stream:
        ...     stream.write(b"meow")
        ...     stream.end()
        ...     assert stream.read() == ("out", b"meow")
    """

    def __init__(
        self,
        host: Host,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        size: Size | None = None,
    ) -> None:
        self._name = host.name
        self._writing = threading.Lock()
        self._rest = b""
        self.code: int | None = None
        with contextlib.ExitStack() as undo:
            self._pipe = undo.enter_context(contextlib.closing(host.open()))
            params = {"argv": list(argv), "env": dict(env or {}), "size": size}
            self._send({"op": "stream", "params": params})
            said, _ = self._next()
            if not said["ok"]:
                raise wire.error_of(said, self._name)
            undo.pop_all()

    def read(self) -> tuple[str, bytes] | None:
        """Return what the program wrote next, and to which of its streams: ``out`` or ``err``; nothing at its end.

        Raises HostUnreachableError where the connection is lost.
        """
        header, data = self._next()
        if "exit" in header:
            self.code = header["exit"]
            return None
        return header["to"], data

    def output(self, size: int, errors: IO[bytes] | None = None) -> bytes:
        """Return at most ``size`` bytes of its output, none at its end; what it says beside that goes to ``errors``."""
        while not self._rest and (piece := self.read()) is not None:
            name, data = piece
            if name == "out":
                self._rest = data
            elif errors is not None:
                errors.write(data)
                errors.flush()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def write(self, data: bytes) -> None:
        """Give the program input; raises HostUnreachableError."""
        self._send({}, data)

    def end(self) -> None:
        """End the program's input."""
        self._send({"end": True})

    def stop(self) -> None:
        """End the program, and hear what it says to that."""
        self._send({"stop": True})

    def resize(self, size: Size) -> None:
        """Tell the program's terminal its size."""
        self._send({"size": size})

    def close(self) -> None:
        """End the program, wherever it is."""
        self._pipe.close()

    def __enter__(self) -> Stream:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the program."""
        self.close()

    def _send(self, header: dict[str, object], data: bytes = b"") -> None:
        try:
            with self._writing:
                self._pipe.write(encode_frame(header, data))
        except (OSError, EOFError) as error:
            raise self._lost() from error

    def _next(self) -> tuple[dict[str, Any], bytes]:
        try:
            frame = read_frame(self._pipe.read)
        except (OSError, EOFError, ValueError, FrameError) as error:
            raise self._lost() from error
        if frame is None:
            raise self._lost()
        return frame

    def _lost(self) -> HostUnreachableError:
        return HostUnreachableError("the connection was lost", where=self._name)
