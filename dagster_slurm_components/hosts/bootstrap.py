"""Sending the satellite to a Python at the other end of a pipe, and waiting until it speaks."""

from __future__ import annotations

import contextlib
import re
import threading
from dataclasses import dataclass
from typing import Protocol

from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError
from dagster_slurm_components.hosts.channel import Pipe
from dagster_slurm_components.hosts.program import BOOTSTRAP, program
from dagster_slurm_components.hosts.satellite.protocol import READY

PYTHONS = ("python3", "/usr/libexec/platform-python")
"""Tried in this order; the second is what RHEL 8 has when no python3 is installed."""

_NOISE = 64 * 1024
"""Bytes of banners that a login shell may print before the satellite speaks."""


_PASSING = re.compile(
    "Resource temporarily unavailable|Cannot allocate memory|Stale file handle|Input/output error|"
    "nologin|going down|not permitted to log in yet",
    re.IGNORECASE,
)
"""What an overloaded or restarting machine says: waiting may heal it."""


@dataclass(frozen=True)
class Ending:
    """How a process at the other end of a pipe ended, as far as known."""

    returncode: int | None
    stderr: str


class ProcessPipe(Pipe, Protocol):
    """A pipe to a process's standard input and output."""

    def ending(self) -> Ending:
        """Return how the process ended; called after its output ended."""


class NoPythonError(HostRefusedError):
    """This Python is missing, or too old: another one may do."""


def source() -> bytes:
    """Return the satellite's program."""
    return program("dagster_slurm_components.hosts.satellite.operations")


def arguments(python: str) -> list[str]:
    """Return the command that waits for the satellite's program on its standard input.

    Isolated (``-I``) and without ``site`` (``-S``), as neither a user's modules and variables nor a folder's
    content may decide what the satellite imports.
    """
    return [python, "-I", "-S", "-c", BOOTSTRAP, str(len(source()))]


def shell_command(python: str) -> str:
    """Return the same for a login shell: sh, bash, csh and fish all read it alike."""
    command, *options, bootstrap, length = arguments(python)
    return f"{command} {' '.join(options)} '{bootstrap}' {length}"


def boot(pipe: ProcessPipe, name: str, timeout: float) -> None:
    """Send the satellite and wait until its frames begin.

    Args:
        pipe: To a process that runs ``arguments``; closed when this raises.
        name: The host's name for messages.
        timeout: Seconds until the satellite must have spoken.

    Raises:
        NoPythonError: There is no such Python, or it is too old.
        HostRefusedError: Something else answered.
        HostUnreachableError: Nothing answered in time.
    """
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        pipe.close()

    watchdog = threading.Timer(timeout, expire)
    watchdog.daemon = True
    watchdog.start()
    try:
        # Beside the listening: who says no need not read, and what is sent may be more than a pipe holds.
        sender = threading.Thread(target=_send, args=(pipe,), name=f"program for {name}", daemon=True)
        sender.start()
        noise = _listen(pipe)
        if noise.endswith(READY):
            sender.join()
            return
    finally:
        watchdog.cancel()
    ending = pipe.ending()
    pipe.close()
    raise _reason(noise, ending, name, timeout if expired.is_set() else None)


def _send(pipe: Pipe) -> None:
    with contextlib.suppress(OSError, EOFError):  # it has ended already: what it said tells why
        pipe.write(source())


def _listen(pipe: Pipe) -> bytes:
    # One byte more than the marker could be the first frame's: read what is missing, no more.
    noise = b""
    while not noise.endswith(READY) and len(noise) < _NOISE:
        try:
            piece = pipe.read(_missing(noise))
        except (OSError, EOFError):
            break
        if not piece:
            break
        noise += piece
    return noise


def _missing(noise: bytes) -> int:
    """Return how many bytes can be read without reading beyond a marker that may have begun."""
    marker = READY
    begun = max(length for length in range(len(marker)) if noise.endswith(marker[:length]))
    return len(marker) - begun


def _reason(noise: bytes, ending: Ending, name: str, timeout: float | None) -> Exception:
    said = "\n".join((noise.decode("utf-8", "replace") + ending.stderr).strip().splitlines()[:10])
    if timeout is not None:
        return HostUnreachableError(
            f"the satellite did not start within {timeout:g} s; the host printed:\n{said}", where=name
        )
    if _PASSING.search(said):
        return HostUnreachableError(
            f"the host can't start the satellite now; it printed:\n{said}", where=name
        )
    if ending.returncode in (126, 127) or "needs Python 3.6" in said:
        return NoPythonError(said or "no python3", where=name)
    if ending.returncode is None and not said:
        return HostUnreachableError("the connection was lost while the satellite started", where=name)
    return HostRefusedError(
        f"the satellite did not start (exit status {ending.returncode}); the host printed:\n{said}",
        where=name,
        hint="The login must run commands: check by hand that 'ssh HOST python3 --version' works.",
    )
