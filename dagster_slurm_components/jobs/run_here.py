"""Runs a command on this machine for as long as somebody wants it to run; it ends with its process group."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO, cast

from dagster_slurm_components.errors import printable

_KEPT = 4096
"""Bytes of a command's output that are kept: the last ones."""
_LISTEN = 0.2


@dataclass(frozen=True)
class Ran:
    """How a command ended: what is wrong, if anything is, and the end of its output."""

    wrong: str
    output: str


def run_here(argv: Sequence[str], folder: Path, timeout: float, stop: Event) -> Ran:
    """Run a command in a folder, in this process's environment; ended after so many seconds, and once ``stop`` is set.

    Programs that lie beside this Python are found, too.
    """
    path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{Path(sys.executable).parent}"
    try:
        process = subprocess.Popen(
            list(argv),
            cwd=folder,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Ran(f"can't be started: {error.strerror if isinstance(error, OSError) else error}", "")
    deadline, output, ended = time.monotonic() + timeout, b"", False
    with process, selectors.DefaultSelector() as selector:
        stdout = cast("IO[bytes]", process.stdout)
        selector.register(stdout, selectors.EVENT_READ)
        try:
            while not stop.is_set() and time.monotonic() < deadline:
                ended = process.poll() is not None  # before the look, after which nothing of its own can come
                heard = selector.select(0 if ended else _LISTEN) if selector.get_map() else []
                piece = os.read(stdout.fileno(), 65536) if heard else b""
                output = (output + piece)[-_KEPT:]
                if ended and not piece:
                    break
                if heard and not piece:  # it has closed its output, and runs on
                    selector.unregister(stdout)
                elif not selector.get_map():
                    stop.wait(_LISTEN)
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody of it is left
                os.killpg(process.pid, signal.SIGKILL)
    told = printable(output.decode("utf-8", "replace")).strip()
    if not ended:
        return Ran(
            "was ended with its step" if stop.is_set() else f"had not ended after {timeout:.0f} s", told
        )
    return Ran(f"ended with {process.returncode}" if process.returncode else "", told)
