"""A host behind a connection: dialed on the first call, and again after a loss; further channels for large calls."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dagster_slurm_components.errors import (
    HostError,
    HostRefusedError,
    HostUnreachableError,
    LoginRequiredError,
)
from dagster_slurm_components.hosts.base import Pipe, Reply
from dagster_slurm_components.hosts.channel import Channel, Dialer
from dagster_slurm_components.hosts.ssh_errors import DroppedError

LARGE = 1024 * 1024
"""Bytes from which a call counts as one that carries much."""

NEAR = 0.005
"""Seconds of a round trip up to which two channels carry 800 MB/s; four of them took CPU from those that work."""
_LINGER = 5.0
_REFUSED_PAUSE = 30.0
_LONGEST_PAUSE = 60.0


class RemoteHost:
    """The host that a dialer reaches.

    At most one attempt to connect is under way, whoever asks; others wait for its result. Two attempts are at
    least ``interval`` seconds apart, also when the first one succeeded and the connection was lost soon after;
    after refusals the pause doubles up to a minute (it begins at 30 s, or 15 s where sshd hangs up early): a login node
    bans whoever knocks too often. A host that can't be reached counts nothing, and is found again soon after it is
    back. Calls in between raise the last failure again.

    Args:
        dialer: How to reach it.
        interval: Least seconds between two attempts.
        channels: How many there may be on the connection while large transfers are under way. sshd allows ten sessions
            (MaxSessions), and others want some, too.
        clock: A monotonic clock, in seconds.
        jitter: Between 0 and 1; keeps those who lost a host together from coming back together.
    """

    def __init__(
        self,
        dialer: Dialer,
        *,
        interval: float = 15.0,
        channels: int = 4,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = dialer.name
        self._dialer = dialer
        self._interval = interval
        self._channels = channels
        self._clock = clock
        self._jitter = jitter
        self._dialing = threading.Lock()
        self._lanes: Lanes | None = None
        self._refusals = 0
        self.failure: HostError | None = None
        """Why the last attempt failed, if it did."""
        self._not_before = 0.0

    @property
    def connected(self) -> bool:
        """Whether a connection stands, as far as is known without asking."""
        return self._lanes is not None and not self._lanes.main.lost

    def call(self, op: str, params: Mapping[str, Any], blob: bytes = b"", *, timeout: float = 60.0) -> Reply:
        """Do one operation; see ``Host.call``. Large transfers that are under way together share several channels."""
        lanes = self._connected()
        if op != "fetch" and (op not in ("put", "receive") or len(blob) < LARGE):
            return lanes.main.call(op, params, blob, timeout)
        with lanes.lane() as lane:
            return lane.call(op, params, blob, timeout)

    def open(self) -> Pipe:
        """Return a pipe of the caller's own; see ``Host.open``."""
        self._connected()
        return self._dialer.open()

    def connect(self) -> None:
        """Connect now, whatever pause is left: a person asked for it."""
        with self._dialing:
            if not self.connected:
                self._dial()

    def close(self) -> None:
        """End the connection; a later call makes a new one."""
        with self._dialing:
            lanes, self._lanes = self._lanes, None
            self._not_before = 0.0 if self.failure is None else self._not_before
        if lanes is not None:
            lanes.close()

    def _connected(self) -> Lanes:
        lanes = self._lanes
        if lanes is not None and not lanes.main.lost:
            return lanes
        with self._dialing:
            if self._lanes is not None and self.connected:
                return self._lanes  # somebody else's attempt succeeded while we waited
            pause = self._not_before - self._clock()
            if pause > 0:
                last = self.failure or HostUnreachableError("the connection was lost", where=self.name)
                # After a login that a person has to make there is no attempt of our own.
                due = "" if isinstance(last, LoginRequiredError) else f" (next attempt in {pause:.0f} s)"
                text = f"{last.message}{due}"
                raise type(last)(text, where=last.where, hint=last.hint)
            return self._dial()

    def _dial(self) -> Lanes:
        try:
            pipe = self._dialer.dial()
        except (HostUnreachableError, HostRefusedError) as error:
            if isinstance(error, (HostRefusedError, DroppedError)):
                least = _REFUSED_PAUSE if isinstance(error, HostRefusedError) else 0.0
                first = max(least, self._interval)
                self._pause(min(first * 2**self._refusals, max(_LONGEST_PAUSE, first)))
                self._refusals += 1
            else:
                self._pause(self._interval)
            self.failure = error
            raise
        self._pause(self._interval)
        self._refusals = 0
        self.failure = None
        self._lanes = Lanes(self._dialer, Channel(pipe, self.name), self._channels - 1, _LINGER)
        return self._lanes

    def _pause(self, seconds: float) -> None:
        self._not_before = self._clock() + seconds * (1 + self._jitter() / 6)


class Lanes:
    """The channels of one connection: the main one, and others while several large calls are under way.

    OpenSSH gives each channel a window of 2 MiB, so that one alone carries no more than that in a round trip: 59 MB/s
    at 30 ms, whatever the line could do. Only more channels help, and they need no further login. There are ``most``
    beside the main one, one where a round trip takes less than ``near`` seconds, until there was no large call for
    ``linger`` seconds: a transfer has moments without one, and each channel costs the start of a Python there.
    """

    def __init__(self, dialer: Dialer, main: Channel, most: int, linger: float, near: float = NEAR) -> None:
        self.main = main
        self._near = near
        self._dialer = dialer
        self._most = most
        self._linger = linger
        self._uses = 0
        self._looked_after = False
        """Whether a timer waits to close what nobody uses."""
        self._lock = threading.Lock()
        self._busy = {main: 0}
        self._barred = False
        """Whether no channel is to be opened: the host refused one, or one is being opened just now."""

    @contextlib.contextmanager
    def lane(self) -> Iterator[Channel]:
        """Yield a channel for one large call: the main one, or another if that is taken already."""
        with self._lock:
            for lost in [channel for channel in self._busy if channel.lost and channel is not self.main]:
                del self._busy[lost]
            channel = min(self._busy, key=self._busy.__getitem__)
            most = min(self._most, 1) if self.main.quickest < self._near else self._most
            open_one = bool(self._busy[channel]) and len(self._busy) <= most and not self._barred
            self._barred = self._barred or open_one
            self._busy[channel] += 1
            self._uses += 1
        try:
            if open_one:  # which takes a second, and this call need not wait for it
                threading.Thread(target=self._open, daemon=True).start()
            yield channel
        finally:
            with self._lock:
                if channel in self._busy:  # else it was lost meanwhile
                    self._busy[channel] -= 1
            self._look_after()

    def _look_after(self) -> None:
        """See to it that somebody tidies up in time; one timer is enough for all."""
        with self._lock:
            if self._looked_after or not (self._barred or len(self._busy) > 1):
                return
            self._looked_after, uses = True, self._uses
        timer = threading.Timer(self._linger, self._look, [uses])
        timer.daemon = True
        timer.start()

    def _look(self, before: int) -> None:
        with self._lock:
            self._looked_after, quiet = False, self._uses == before
            # Where a call is under way yet, its end sees to it.
            idle = [] if not quiet or any(self._busy.values()) else self._forget()
        for extra in idle:
            extra.close()
        if not quiet:
            self._look_after()

    def close(self) -> None:
        """Close all channels."""
        with self._lock:
            channels = [*self._forget(), self.main]
        for channel in channels:
            channel.close()

    def _open(self) -> None:
        """Open a channel, if the host allows it; else none is opened any more until all are idle."""
        try:
            pipe = self._dialer.open()
        except HostError:  # a host that allows one session alone, or is lost: the main channel will tell
            return
        opened = Channel(pipe, self._dialer.name)
        with self._lock:
            self._barred = False
            self._busy[opened] = 0
        if self.main.lost:  # all were closed meanwhile
            opened.close()
        else:
            self._look_after()

    def _forget(self) -> list[Channel]:
        extra = [channel for channel in self._busy if channel is not self.main]
        self._busy = {self.main: self._busy[self.main]}
        self._barred = False
        return extra
