"""Kill a piece of work with SIGKILL at a chosen line, and wait until nothing of it runs any more."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Set
from typing import Any

_BECOME_SUBREAPER = 36
"""prctl(2): orphans of a killed child become ours, so that their end can be waited for. Linux alone has it."""


def adopt_orphans() -> None:
    """Become the parent of what killed children leave running."""
    ctypes.CDLL(None).prctl(_BECOME_SUBREAPER, 1, 0, 0, 0)


def killed_at(line: int, work: Callable[[], object], files: Set[str]) -> bool:
    """Do the work in a child that kills itself at a line; return whether it got there.

    Args:
        line: The how-manieth line of these files that is executed.
        work: What is done.
        files: The source files whose lines count.
    """
    child = os.fork()
    if child == 0:
        seen = 0

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal seen
            if frame.f_code.co_filename not in files:
                return None
            if event == "line":
                seen += 1
                if seen == line:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        work()
        sys.settrace(None)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def reap() -> None:
    """Wait until all orphans have ended: what a kill left running may still make a job."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
