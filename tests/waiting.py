"""Waiting for what processes do, with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

PATIENCE = 300.0


def eventually(
    attempt: Callable[[], Found | None], what: str, seconds: float = PATIENCE, *, pause: float = 0.1
) -> Found:
    """Return what an attempt finds, as soon as it does."""
    deadline = time.monotonic() + seconds
    while True:
        found = attempt()
        if found:
            return found
        assert time.monotonic() < deadline, f"it took too long: {what}"
        time.sleep(pause)
