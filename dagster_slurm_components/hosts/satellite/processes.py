"""Processes of this machine: whether they live, and signals to them."""

import contextlib
import os
import signal
from typing import Dict, List, Optional, Sequence

from dagster_slurm_components.hosts.satellite.calls import Process
from dagster_slurm_components.hosts.satellite.commands import command_environment, execute
from dagster_slurm_components.hosts.satellite.protocol import Failure, Result

_HAS_PROC = os.path.exists("/proc/self/stat")


def pid_namespace() -> str:
    """Return where the numbers of processes that are seen here mean something: containers have others."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""  # no Linux: there are none


def identify(pids: Sequence[int]) -> Dict[int, str]:
    """Return the start (``calls.Process``) of each process that exists; a zombie does not."""
    if not _HAS_PROC:
        return _starts_by_ps(pids)
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read()[:8]
    starts = {pid: _start_in_proc(pid, boot) for pid in pids}
    return {pid: start for pid, start in starts.items() if start is not None}


def _start_in_proc(pid: int, boot: str) -> Optional[str]:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The program's name, in parentheses, may hold anything: count from its end.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else f"{fields[19].decode()}-{boot}"


def _starts_by_ps(pids: Sequence[int]) -> Dict[int, str]:
    if not pids:
        return {}
    listed = ",".join(str(pid) for pid in pids).encode()
    environment = command_environment()
    environment[b"TZ"] = b"UTC0"  # lstart is a local time
    done = execute([b"ps", b"-o", b"pid=,state=,lstart=", b"-p", listed], environment)
    rows = [line.split() for line in done.stdout.decode("ascii", "replace").splitlines()]
    return {int(row[0]): "_".join(row[2:]) for row in rows if len(row) > 2 and not row[1].startswith("Z")}


def living(processes: Sequence[Process]) -> List[bool]:
    """Return whether each process still runs."""
    starts = identify([int(pid) for pid, _ in processes])
    return [starts.get(int(pid)) == start for pid, start in processes]


def alive(processes: Sequence[Process]) -> Result:
    """Return ``alive``: whether each process still runs."""
    return {"alive": living(processes)}


def kill(process: Process, name: str) -> Result:
    """Send a signal (``TERM``) to a started process; return whether it was still there as ``sent``.

    The process gets it for its group and hands it on as it sees fit. KILL can't be handed on, so it goes to
    every process of the session.
    """
    number = getattr(signal, "SIG" + name, None)
    if not isinstance(number, signal.Signals):
        raise Failure("bad_request", f"there is no signal {name!r}")
    if not living([process])[0]:
        return {"sent": False}
    pid = int(process[0])
    for member in _session(pid) if number == signal.SIGKILL else []:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, number)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
    return {"sent": True}


def _session(leader: int) -> List[int]:
    if _HAS_PROC:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    else:
        done = execute([b"ps", b"-A", b"-o", b"pid="], command_environment())
        pids = [int(word) for word in done.stdout.split()]
    members = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if pid != leader and os.getsid(pid) == leader:
                members.append(pid)
    return members
