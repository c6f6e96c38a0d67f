"""A host behind a connection: dialed on the first call, and again after a loss."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from dagster_slurm_components.errors import HostError, HostRefusedError, HostUnreachableError
from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.channel import Channel, Dialer
from dagster_slurm_components.hosts.lanes import LARGE, Lanes

_REFUSED_PAUSE = 30.0
_LONGEST_PAUSE = 60.0


class RemoteHost:
    """The host that a dialer reaches.

    At most one attempt to connect is under way, whoever asks; others wait for its result. Two attempts are at
    least ``interval`` seconds apart, also when the first one succeeded and the connection was lost soon after;
    after failures the pause doubles up to a minute (it begins at 30 s after a refusal). A login node bans whoever
    knocks too often. Calls in between raise the last failure again.

    Args:
        dialer: How to reach it.
        interval: Least seconds between two attempts.
        channels: How many there may be on the connection while large uploads are under way. sshd allows ten sessions
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
        self._dialer = dialer
        self._interval = interval
        self._clock = clock
        self._jitter = jitter
        self._dialing = threading.Lock()
        self._channel: Channel | None = None
        self._lanes = Lanes(dialer, channels - 1)
        self._failures = 0
        self._failure: HostError | None = None
        self._not_before = 0.0

    @property
    def name(self) -> str:
        """``user@hostname:port``."""
        return self._dialer.name

    @property
    def connected(self) -> bool:
        """Whether a connection stands, as far as is known without asking."""
        return self._channel is not None and not self._channel.lost

    @property
    def failure(self) -> HostError | None:
        """Why the last attempt failed, if it did."""
        return self._failure

    def call(
        self, op: str, params: Mapping[str, Any] | None = None, blob: bytes = b"", *, timeout: float = 60.0
    ) -> Reply:
        """Do one operation; see ``Host.call``. Large uploads that are under way together share several channels."""
        channel = self._connected()
        if op != "put" or len(blob) < LARGE:
            return channel.call(op, params or {}, blob, timeout)
        with self._lanes.lane(channel) as lane:
            return lane.call(op, params or {}, blob, timeout)

    def connect(self) -> None:
        """Connect now, whatever pause is left: a person asked for it."""
        with self._dialing:
            if not self.connected:
                self._channel = self._dial()

    def close(self) -> None:
        """End the connection; a later call makes a new one."""
        with self._dialing:
            channel, self._channel = self._channel, None
            self._not_before = 0.0 if self._failure is None else self._not_before
        self._lanes.close()
        if channel is not None:
            channel.close()

    def _connected(self) -> Channel:
        channel = self._channel
        if channel is not None and not channel.lost:
            return channel
        with self._dialing:
            if self._channel is not None and not self._channel.lost:
                return self._channel  # somebody else's attempt succeeded while we waited
            pause = self._not_before - self._clock()
            if pause > 0:
                raise self._told_again(pause)
            self._channel = None
            self._channel = self._dial()
            return self._channel

    def _told_again(self, pause: float) -> HostError:
        known = self._failure or HostUnreachableError("the connection was lost", where=self.name)
        return type(known)(
            f"{known.message} (next attempt in {pause:.0f} s)", where=known.where, hint=known.hint
        )

    def _dial(self) -> Channel:
        try:
            pipe = self._dialer.dial()
        except (HostUnreachableError, HostRefusedError) as error:
            first = (
                max(_REFUSED_PAUSE, self._interval) if isinstance(error, HostRefusedError) else self._interval
            )
            self._pause(min(first * 2**self._failures, max(_LONGEST_PAUSE, first)))
            self._failures += 1
            self._failure = error
            raise
        self._pause(self._interval)
        self._failures = 0
        self._failure = None
        return Channel(pipe, self._dialer.name)

    def _pause(self, seconds: float) -> None:
        self._not_before = self._clock() + seconds * (1 + 0.5 * self._jitter())
