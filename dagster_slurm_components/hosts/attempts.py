"""Attempts to connect, as all processes of this user on this machine know of them: a small file a host.

It is there while a host can't be reached. Processes that connect without the agent keep off a host that another one has
just failed to reach, and whoever wants to know which hosts are waited for reads it without asking any host.
"""

import hashlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dagster_slurm_components.errors import (
    HostError,
    HostRefusedError,
    HostUnreachableError,
    LoginRequiredError,
)
from dagster_slurm_components.hosts import wire
from dagster_slurm_components.hosts.channel import Dialer, Pipe
from dagster_slurm_components.hosts.satellite.files import read_json, write_json
from dagster_slurm_components.hosts.satellite.locks import locked

FORGOTTEN = 300.0
"""Seconds after the last attempt from which on nobody seems to wait any more: who waits tries every minute or two."""


@dataclass(frozen=True)
class Failing:
    """A host that can't be reached: why, and the epochs of the first failed attempt (``since``) and the last one."""

    host: str
    error: HostError
    since: float
    tried: float


def failing(folder: Path, *, clock: Callable[[], float] = time.time) -> list[Failing]:
    """Return the hosts that somebody on this machine waits for."""
    hosts = [_read(path) for path in sorted(folder.glob("failing-*.json"))]
    return [host for host in hosts if host is not None and clock() - host.tried < FORGOTTEN]


def _read(path: Path) -> Failing | None:
    kept = read_json(os.fsencode(path))
    if kept is None:
        return None
    return Failing(kept["host"], wire.error_of(kept["failure"], kept["host"]), kept["since"], kept["tried"])


class NotedDialer:
    """A dialer whose attempts the whole machine knows of: they are noted in a ``folder`` that is closed to others.

    ``interval`` is the least seconds after a failed attempt of any process; zero where one process alone dials.
    """

    def __init__(
        self, dialer: Dialer, folder: Path, *, interval: float = 0.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._dialer = dialer
        self.name = dialer.name
        self.extend = dialer.extend
        self._path = folder / f"failing-{hashlib.sha256(self.name.encode()).hexdigest()[:16]}.json"
        self._interval = interval
        self._clock = clock

    def dial(self) -> Pipe:
        """Return a pipe to the satellite; see ``Dialer``."""
        if not self._interval:
            return self._dial()
        with locked(os.fsencode(self._path.with_suffix(".lock")), math.inf):
            last = _read(self._path)
            # A login that nobody answered was not tried, so that there is nothing to keep off from.
            if last is not None and not isinstance(last.error, LoginRequiredError):
                left = last.tried + self._interval - self._clock()
                if 0 < left <= self._interval:  # more than that: the clock was set back
                    why = f"{last.error.message} (so another process was told; next attempt in {left:.0f} s)"
                    raise type(last.error)(why, where=last.error.where, hint=last.error.hint)
            return self._dial()

    def _dial(self) -> Pipe:
        try:
            pipe = self._dialer.dial()
        except (HostUnreachableError, HostRefusedError) as error:
            now, before = self._clock(), _read(self._path)
            since = before.since if before is not None and now - before.tried < FORGOTTEN else now
            content = {"host": self.name, "since": since, "tried": now, "failure": wire.failure(error)}
            write_json(os.fsencode(self._path), content)
            raise
        self._path.unlink(missing_ok=True)
        return pipe
