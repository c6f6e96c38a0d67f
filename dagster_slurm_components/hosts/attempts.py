"""Attempts to connect, as all processes of this user on this machine know of them: small files for each host.

``failing`` is there while it can't be reached: processes that connect without the agent keep off a host that another
one has just failed to reach. ``waiting`` says that a step waits for it, so that whoever wants to know reads it without
asking any host. ``reached`` is there once it was reached: only then is a name that nobody knows an outage.
"""

import contextlib
import hashlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dagster_slurm_components.errors import (
    HostError,
    HostRefusedError,
    HostUnreachableError,
    LoginRequiredError,
    UnknownNameError,
)
from dagster_slurm_components.hosts import wire
from dagster_slurm_components.hosts.base import Pipe
from dagster_slurm_components.hosts.channel import Dialer
from dagster_slurm_components.hosts.satellite.files import read_json, write_json
from dagster_slurm_components.hosts.satellite.locks import locked

FORGOTTEN = 300.0
"""Seconds after the last attempt from which on nobody seems to wait any more: who waits tries every minute or two."""


@dataclass(frozen=True)
class Failing:
    """A host that steps wait for: why, and the epochs of the first failed attempt (``since``) and the last one."""

    host: str
    error: HostError
    since: float
    tried: float


def failing(folder: Path, *, clock: Callable[[], float] = time.time) -> list[Failing]:
    """Return the hosts that steps on this machine wait for. Who only tried one, as doctor does, waits for none."""
    found = []
    for path in sorted(folder.glob("failing-*.json")):
        host = _read(path)
        waiting = read_json(os.fsencode(_file(folder, "waiting", host.host))) if host is not None else None
        if host is None or waiting is None or clock() - min(host.tried, waiting["seen"]) >= FORGOTTEN:
            continue
        found.append(replace(host, error=host.error.of_profile(waiting["profile"])))
    return found


def note_waiting(folder: Path, host: str, profile: str, *, clock: Callable[[], float] = time.time) -> None:
    """Note that a step waits for a host; whoever waits says so at each try."""
    write_json(os.fsencode(_file(folder, "waiting", host)), {"seen": clock(), "profile": profile})


def _file(folder: Path, what: str, host: str) -> Path:
    return folder / f"{what}-{hashlib.sha256(host.encode()).hexdigest()[:16]}.json"


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
        self.open = dialer.open
        self._path = _file(folder, "failing", self.name)
        self._reached = _file(folder, "reached", self.name)
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
            pipe = self._dial_known()
        except (HostUnreachableError, HostRefusedError) as error:
            now, before = self._clock(), _read(self._path)
            since = before.since if before is not None and now - before.tried < FORGOTTEN else now
            content = {"host": self.name, "since": since, "tried": now, "failure": wire.failure(error)}
            with contextlib.suppress(OSError):  # a full disk: others are not told, and that is all
                write_json(os.fsencode(self._path), content)
            raise
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._reached.touch(mode=0o600)
        return pipe

    def _dial_known(self) -> Pipe:
        try:
            return self._dialer.dial()
        except UnknownNameError as error:
            if self._reached.exists():
                raise
            hint = "Correct the hostname, or connect to the network (VPN) that knows it."
            raise HostRefusedError(error.message, where=error.where, hint=hint) from error
