"""Further channels over a host's one connection, for calls that carry much.

OpenSSH gives each channel a window of 2 MiB, so that one alone carries no more than that in a round trip: 59 MB/s at
30 ms, whatever the line could do. Only more channels help, and they need no further login.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from dagster_slurm_components.errors import HostError
from dagster_slurm_components.hosts.channel import Channel, Dialer

LARGE = 1024 * 1024
"""Bytes from which a call counts as one that carries much."""


class Lanes:
    """Opens channels while several large calls are under way, and closes them when none is.

    Args:
        dialer: Who made the main channel.
        most: Channels beside the main one, at most.
    """

    def __init__(self, dialer: Dialer, most: int) -> None:
        self._dialer = dialer
        self._most = most
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._main: Channel | None = None
        self._busy: dict[Channel, int] = {}
        self._refused = False

    @contextlib.contextmanager
    def lane(self, main: Channel) -> Iterator[Channel]:
        """Yield a channel for one large call: the main one, or another if that is taken already."""
        channel = self._take(main)
        try:
            channel = self._widened(channel, main)
            yield channel
        finally:
            self._give_back(channel)

    def close(self) -> None:
        """Close all channels but the main one."""
        with self._lock:
            extra = self._forget()
        _close(extra)

    def _take(self, main: Channel) -> Channel:
        """Return the least busy channel, counted as taken."""
        with self._lock:
            stale: list[Channel] = []
            if self._main is not main:  # the connection is another one by now
                stale, self._refused = self._forget(), False
                self._main, self._busy = main, {main: 0}
            for lost in [channel for channel in self._busy if channel.lost and channel is not main]:
                del self._busy[lost]
            channel = min(self._busy, key=self._busy.__getitem__)
            self._busy[channel] += 1
        _close(stale)
        return channel

    def _widened(self, taken: Channel, main: Channel) -> Channel:
        """Return a new channel instead of one that others use too, unless somebody else opens one just now."""
        with self._lock:
            enough = self._busy.get(taken, 0) < 2 or len(self._busy) > self._most or self._refused
        if enough or not self._opening.acquire(blocking=False):
            return taken
        try:
            opened = self._open(main)
        finally:
            self._opening.release()
        with self._lock:
            self._refused = opened is None
            if opened is not None and self._main is main:
                if taken in self._busy:  # else it was lost meanwhile
                    self._busy[taken] -= 1
                self._busy[opened] = 1
                return opened
        _close([opened] if opened is not None else [])
        return taken

    def _give_back(self, channel: Channel) -> None:
        with self._lock:
            if channel in self._busy:
                self._busy[channel] -= 1
            idle = [] if any(self._busy.values()) else self._forget()
        _close(idle)

    def _forget(self) -> list[Channel]:
        extra = [channel for channel in self._busy if channel is not self._main]
        self._main, self._busy = None, {}
        return extra

    def _open(self, main: Channel) -> Channel | None:
        try:
            pipe = self._dialer.extend(main.pipe)
        except HostError:  # a host that allows one session alone, or is lost: the main channel will tell
            return None
        return None if pipe is None else Channel(pipe, self._dialer.name)


def _close(channels: list[Channel]) -> None:
    for channel in channels:
        channel.close()
