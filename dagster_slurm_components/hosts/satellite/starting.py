"""A job that is a plain process: started once, and found again if its starter was killed."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from typing import Any, Sequence

from dagster_slurm_components.hosts.satellite.commands import job_environment
from dagster_slurm_components.hosts.satellite.ledger import Ledger
from dagster_slurm_components.hosts.satellite.processes import identify
from dagster_slurm_components.hosts.satellite.protocol import Result, native

_GATE = """umask 077
IFS= read -r word && [ "$word" = go ] || exit 75
printf 'released=%s\\n' "$$" >>ledger || exit 75
exec "$@" </dev/null
"""
"""The started process waits here until its id is in the ledger; without the word it ends and ran nothing."""


def start(folder: bytes, argv: Sequence[str]) -> Result:
    """Start a job in its run directory; its id is in the ledger before it runs."""
    ledger = Ledger(folder)
    logs = [
        os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for name in (b"stdout.log", b"stderr.log")
    ]
    try:
        process: Any = subprocess.Popen(
            [b"/bin/sh", b"-c", _GATE.encode(), b"sh", *(native(word) for word in argv)],
            stdin=subprocess.PIPE,
            stdout=logs[0],
            stderr=logs[1],
            cwd=folder,
            env=job_environment(),
            start_new_session=True,
        )
    finally:
        for log in logs:
            os.close(log)
    start = identify([process.pid]).get(process.pid)
    job_id = f"{process.pid}:{start}"
    ledger.append(("job_id", job_id))
    with contextlib.suppress(BrokenPipeError):  # killed meanwhile: its watcher will see
        os.write(process.stdin.fileno(), b"go\n")
    process.stdin.close()
    ledger.append(("submitted", int(time.time())))
    # In a long-lived process somebody has to collect the exit, or a zombie stays.
    threading.Thread(target=process.wait, name=f"reaper-{process.pid}", daemon=True).start()
    return {"outcome": "submitted", "job_id": job_id}


def settle_start(folder: bytes, ledger: Ledger) -> None:
    """Find out whether a process whose starter was killed became the job; if not, the ledger says so."""
    number, _, start = (ledger.job_id or "").partition(":")
    pid = int(number)
    patience = time.monotonic() + 5.0
    while True:
        waiting = identify([pid]).get(pid) == start
        # Read after looking: a process that has ended since may have been the job.
        if Ledger(folder).released:
            ledger.released = True
            return
        if not waiting:
            ledger.append(("void", int(time.time())))
            return
        if time.monotonic() > patience:  # a process forked from its starter may hold the gate's pipe open
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
