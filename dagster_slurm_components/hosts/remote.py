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

_FIRST_PAUSE = 1.0
_REFUSED_PAUSE = 30.0
_LONGEST_PAUSE = 60.0


class RemoteHost:
    """The host that a dialer reaches.

    At most one attempt to connect is under way, whoever asks; others wait for its result. After a failure the
    next attempt waits (1 s, doubling up to a minute; 30 s after a refusal): a login node bans whoever knocks
    too often. Calls in between raise the last failure again.
    """

    def __init__(
        self,
        dialer: Dialer,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._dialer = dialer
        self._clock = clock
        self._jitter = jitter
        self._dialing = threading.Lock()
        self._channel: Channel | None = None
        self._failures = 0
        self._failure: HostError | None = None
        self._not_before = 0.0

    @property
    def name(self) -> str:
        """``user@hostname:port``."""
        return self._dialer.name

    def call(
        self, op: str, params: Mapping[str, Any] | None = None, blob: bytes = b"", *, timeout: float = 60.0
    ) -> Reply:
        """Do one operation; see ``Host.call``."""
        return self._connected().call(op, params or {}, blob, timeout)

    def close(self) -> None:
        """End the connection; a later call makes a new one."""
        with self._dialing:
            channel, self._channel = self._channel, None
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
            if self._failure is not None and pause > 0:
                raise type(self._failure)(
                    f"{self._failure.message} (next attempt in {pause:.0f} s)",
                    where=self._failure.where,
                    hint=self._failure.hint,
                ) from self._failure
            self._channel = None
            self._channel = self._dial()
            return self._channel

    def _dial(self) -> Channel:
        try:
            pipe = self._dialer.dial()
        except (HostUnreachableError, HostRefusedError) as error:
            self._failures += 1
            first = _REFUSED_PAUSE if isinstance(error, HostRefusedError) else _FIRST_PAUSE
            pause = min(first * 2 ** (self._failures - 1), _LONGEST_PAUSE)
            self._failure = error
            self._not_before = self._clock() + pause * (0.75 + 0.5 * self._jitter())
            raise
        self._failures = 0
        self._failure = None
        return Channel(pipe, self._dialer.name)
