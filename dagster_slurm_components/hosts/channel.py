"""Calls over any duplex byte pipe to a satellite: many at once, each answered by its number."""

import concurrent.futures
import itertools
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias

from dagster_slurm_components.errors import HostUnreachableError, SatelliteError
from dagster_slurm_components.hosts import wire
from dagster_slurm_components.hosts.base import Pipe, Reply
from dagster_slurm_components.hosts.satellite.protocol import FrameError, encode_frame, read_frame

_PROBE = 15.0
"""Seconds in which a satellite must answer ``ping`` when a call's answer stays out."""

_LAST_WORDS = 1.0
"""Seconds to go on reading when nothing can be written any more."""


_Answer: TypeAlias = "Future[tuple[Mapping[str, Any], bytes]]"


class Dialer(Protocol):
    """Makes pipes to the satellite of one host: over ssh, to a subprocess, through an agent's socket."""

    @property
    def name(self) -> str:
        """The host's name for messages."""

    def dial(self) -> Pipe:
        """Return a pipe on which the satellite's frames begin; raises HostUnreachableError or HostRefusedError."""

    def open(self) -> Pipe:
        """Return a further pipe over the last connection; raises HostError when the host allows none, or is lost."""


class Channel:
    """One connection to a satellite, over a pipe.

    Attributes:
        quickest: The least seconds that a call took: about what a round trip takes, as most calls are small.
    """

    def __init__(self, pipe: Pipe, name: str) -> None:
        self._pipe = pipe
        self._name = name
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Answer] = {}
        self._state = threading.Lock()
        self._writing = threading.Lock()
        self._loss: str | None = None
        self._heard = time.monotonic()
        self.quickest = float("inf")
        self._reader = threading.Thread(target=self._listen, name=f"satellite of {name}", daemon=True)
        self._reader.start()

    @property
    def lost(self) -> bool:
        """Whether the connection has ended."""
        return self._loss is not None

    def call(self, op: str, params: Mapping[str, Any], blob: bytes, timeout: float) -> Reply:
        """Do one operation; see ``Host.call``."""
        asked = time.monotonic()
        answer = self._send(op, params, blob, timeout)
        try:
            header, data = answer.result(max(0.0, timeout - (time.monotonic() - asked)))
        except concurrent.futures.TimeoutError:  # an alias of the built-in one since Python 3.11 alone
            if op != "ping" and self._heard < asked:
                self._probe()
            raise self._unreachable(f"no answer to {op!r} within {timeout:g} s") from None
        self.quickest = min(self.quickest, time.monotonic() - asked)
        if not header["ok"]:
            raise wire.error_of(header, self._name)
        return Reply(header["result"], data)

    def close(self) -> None:
        """End the connection; waiting calls raise HostUnreachableError."""
        self._lose("closed")
        self._pipe.close()

    def _send(self, op: str, params: Mapping[str, Any], blob: bytes, timeout: float) -> _Answer:
        number = next(self._numbers)
        # The timeout is for an agent in between, which waits for the host in our stead; a satellite passes over it.
        request = {"id": number, "op": op, "params": dict(params), "timeout": timeout}
        try:
            frame = encode_frame(request, blob)
        except FrameError as error:
            raise SatelliteError(str(error), code="too_large", where=self._name) from error
        answer: _Answer = Future()
        with self._state:
            if self._loss is not None:  # nothing was sent: the call was not done
                raise HostUnreachableError(f"the connection was lost: {self._loss}", where=self._name)
            self._waiting[number] = answer
        if not self._writing.acquire(timeout=timeout):
            raise self._unreachable(f"could not send {op!r} within {timeout:g} s")
        try:
            self._pipe.write(frame)
        except (OSError, EOFError) as error:
            self._reader.join(_LAST_WORDS)  # why the other side has ended tells more than a broken pipe
            self._lose(str(error) or type(error).__name__)
        finally:
            self._writing.release()
        return answer

    def _listen(self) -> None:
        reason = "the satellite ended"
        try:
            while (frame := read_frame(self._pipe.read)) is not None:
                header, blob = frame
                if header.get("id") is None:
                    reason = str(header.get("error"))
                    break
                self._heard = time.monotonic()
                with self._state:
                    answer = self._waiting.pop(header["id"], None)
                if answer is not None:  # else the connection was given up meanwhile
                    answer.set_result((header, blob))
        except (OSError, EOFError, FrameError) as error:
            reason = str(error) or type(error).__name__
        self._lose(reason)
        self._pipe.close()

    def _lose(self, reason: str) -> None:
        with self._state:
            if self._loss is None:
                self._loss = reason
            abandoned = list(self._waiting.values())
            self._waiting.clear()
        for answer in abandoned:
            answer.set_exception(self._unreachable(f"the connection was lost: {self._loss}"))

    def _probe(self) -> None:
        # Silence has two reasons: a slow operation on a good connection, which must not be given up, as the
        # next login may need a person; or a dead one, which TCP alone notices only after many minutes.
        try:
            self.call("ping", {}, b"", _PROBE)
        except HostUnreachableError:
            self.close()

    def _unreachable(self, message: str) -> HostUnreachableError:
        return HostUnreachableError(message, where=self._name, hint="Whether the call was done is not known.")
