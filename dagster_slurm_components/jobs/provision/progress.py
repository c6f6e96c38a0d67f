"""How provisioning says what it is doing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, Protocol

Stage = Literal["fetch", "upload", "build"]


class Progress(Protocol):
    """Hears of progress; called from several threads."""

    def __call__(self, stage: Stage, done: int, total: int) -> None:
        """Take note that ``done`` of ``total`` bytes are done; a build has neither."""


def silent(stage: Stage, done: int, total: int) -> None:
    """Say nothing."""


class Counter:
    """Adds up the bytes of several threads for one stage."""

    def __init__(self, progress: Progress, stage: Stage, total: int) -> None:
        self._tell: Callable[[int], None] = lambda done: progress(stage, done, total)
        self._lock = threading.Lock()
        self.done = 0
        self._tell(0)

    def add(self, count: int) -> None:
        """Count further bytes."""
        with self._lock:
            self.done += count
            self._tell(self.done)
