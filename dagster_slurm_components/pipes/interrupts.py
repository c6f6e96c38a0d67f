"""Work that no signal cuts in two.

Signals reach the main thread only, so what must not be cut runs in a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

import dagster as dg

Result = TypeVar("Result")

INTERRUPTS = (dg.DagsterExecutionInterruptedError, KeyboardInterrupt)
"""What Dagster turns signals into. Neither is an ``Exception``."""
_LISTEN = 0.5


class Background(Generic[Result]):
    """A piece of work in a thread.

    Args:
        work: What is done.
        name: The thread's name.
    """

    def __init__(self, work: Callable[[], Result], *, name: str) -> None:
        self._future: Future[Result] = Future()

        def run() -> None:
            try:
                self._future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
                self._future.set_exception(error)

        # Not a daemon: an interpreter that ends waits for what has begun.
        self._thread = threading.Thread(target=run, name=name)
        self._thread.start()

    def result(self) -> Result:
        """Wait, in short pieces so that signals are heard, and return the result or raise its error."""
        while self._thread.is_alive():
            self._thread.join(_LISTEN)
        return self._future.result()

    def settled(self) -> Result:
        """The same, whatever signals come."""
        while True:
            try:
                return self.result()
            except INTERRUPTS:
                if not self._thread.is_alive() and isinstance(self._future.exception(), INTERRUPTS):
                    raise


def shielded(work: Callable[[], Result], *, name: str) -> Result:
    """Do something that no interrupt reaches; return its result or raise its error."""
    return Background(work, name=name).settled()
