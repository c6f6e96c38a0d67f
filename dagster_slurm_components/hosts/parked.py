"""A host as a step sees it: while it can't be reached a call waits, and nothing fails."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dagster_slurm_components.errors import HostUnreachableError, ParkedTooLongError
from dagster_slurm_components.hosts.base import Host, Pipe, Reply

_PAUSES = (0.5, 2.5)
"""The first and the longest pause between two tries; attempts to connect keep their own, longer distance (15 s): both
together bring back who waits within 20 s of the host's return."""


@dataclass(frozen=True)
class Parking:
    """How somebody waits for a host, for ``limit`` seconds at most; what ``sleep`` raises ends the waiting.

    ``tell`` receives a sentence when a wait begins, when its reason changes, and when it is over.
    """

    limit: float
    tell: Callable[[str], None]
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    who: str = "This step"


class ParkedHost:
    """A host whose calls are tried again for as long as it can't be reached.

    A call that was lost on its way may have been done, and is then done twice: all that a step asks of its host may be
    repeated (a submission is known by its ledger, a build by its result). ``note`` is called at each try that fails.
    """

    def __init__(self, host: Host, parking: Parking, note: Callable[[], None] = lambda: None) -> None:
        self._host = host
        self._parking = parking
        self._note = note
        self._told: type[HostUnreachableError] | None = None
        self.name = host.name
        self.close = host.close

    def open(self) -> Pipe:
        """Return a pipe of the caller's own; see ``Host.open``. Nobody waits for that."""
        return self._host.open()

    def call(self, op: str, params: Mapping[str, Any], blob: bytes = b"", *, timeout: float = 60.0) -> Reply:
        """Do one operation, after up to ``Parking.limit``, from when on it raises ParkedTooLongError."""
        parking = self._parking
        since: float | None = None
        pause, longest = _PAUSES
        while True:
            try:
                reply = self._host.call(op, params, blob, timeout=timeout)
            except HostUnreachableError as error:
                self._note()
                now = parking.clock()
                since = now if since is None else since
                parked = now - since
                if parked >= parking.limit:
                    raise parked_too_long(error, parked) from error
                if self._told is not type(error):  # else another call that waits has told it
                    self._told = type(error)
                    parking.tell(f"{error}\n{parking.who} waits for the host{_since(parked)}.")
                parking.sleep(min(pause, parking.limit - parked))
                pause = min(pause * 2, longest)
            else:
                if since is not None and self._told is not None:
                    self._told = None
                    parking.tell(f"The host answers again after {parking.clock() - since:.0f} s.")
                return reply


def _since(seconds: float) -> str:
    if seconds < 1:
        return ""
    return " since " + time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time.time() - seconds))


def parked_too_long(error: HostUnreachableError, seconds: float) -> ParkedTooLongError:
    """Return the error that ends a wait."""
    return ParkedTooLongError(
        f"{error.message} This has lasted for {seconds / 3600:.1f} h, longer than the profile's park_timeout; a job "
        "that was submitted goes on without this step",
        where=error.where,
        hint="Once the host answers, run the step again: it takes up the same job.",
    )
