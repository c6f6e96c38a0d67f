"""Processes by identity: a process id alone says little, since it may be someone else's by now."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Identity:
    """One process, told apart from every other one that has or will have the same id.

    Args:
        pid: The process id.
        start_time: When it started, in clock ticks since the machine's start (/proc/PID/stat, field 22).
        boot_id: Which start of the machine that was.
    """

    pid: int
    start_time: int
    boot_id: str

    @classmethod
    def read(cls, pid_file: Path) -> Identity | None:
        """Read what ``start.sh`` wrote; None where there is no such file, or no such content."""
        try:
            pid, start_time, boot_id = pid_file.read_text().split()
            return cls(int(pid), int(start_time), boot_id)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def is_alive(self) -> bool:
        """Whether exactly this process still runs (a zombie does not)."""
        return identify(self.pid) == self


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the third (state) on; None when the process is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
    return text.rpartition(")")[2].split()


def identify(pid: int) -> Identity | None:
    """Identify a running process; None when it is gone or a zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return Identity(pid, int(fields[19]), (PROC / "sys/kernel/random/boot_id").read_text().strip())


def all_pids() -> list[int]:
    """List the ids of all processes that we can see."""
    return [int(entry) for entry in os.listdir(PROC) if entry.isdigit()]


def descendants(ancestors: Iterable[int]) -> set[int]:
    """Return the ids of the given processes and of all their descendants."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        fields = _stat(pid)
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(pid)
    family: set[int] = set()
    waiting = list(ancestors)
    while waiting:
        pid = waiting.pop()
        if pid not in family:
            family.add(pid)
            waiting += children.get(pid, [])
    return family


def sees_file_as(pid: int, path: str, file: Path) -> bool:
    """Whether a process finds at ``path`` the very file that we find at ``file``."""
    try:
        return os.path.samefile(PROC / str(pid) / "root" / path.lstrip("/"), file)
    except OSError:  # gone meanwhile, or not ours to look at
        return False


def environment(pid: int) -> set[bytes]:
    """Return a process's ``NAME=VALUE`` entries as it was started with; empty where we may not look."""
    try:
        return set((PROC / str(pid) / "environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


def send(processes: Iterable[Identity], number: signal.Signals) -> None:
    """Send a signal to those of the processes which are still themselves."""
    for process in processes:
        if process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)


def wait_gone(processes: Iterable[Identity], timeout: float) -> list[Identity]:
    """Wait until the processes have ended; return those which have not after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    left = [process for process in processes if process.is_alive()]
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [process for process in left if process.is_alive()]
    return left


def stop(processes: Iterable[Identity], timeout: float = 60.0) -> None:
    """End processes with SIGTERM, and after ``timeout`` seconds with SIGKILL."""
    left = list(processes)
    for number in (signal.SIGTERM, signal.SIGKILL):
        send(left, number)
        left = wait_gone(left, timeout)
