"""Helps a payload to stop in time and go on later. Optional: one file, standard library only, Python 3.6 or newer.

In a job it is ``import dagster_slurm_payload``, whatever environment the payload runs in; elsewhere
``from dagster_slurm_components import payload``. By hand, outside of any job, nothing asks to stop and checkpoints
go to the folder ``checkpoint``.

Example:
    A loop that may take longer than the job's time limit, with ``signal: USR1@120`` under ``resources`` and
    ``requeue_on_timeout: 3``::

        import dagster_slurm_payload as payload

        payload.listen()
        saved = payload.load("state")
        state = json.loads(saved) if saved else {"step": 0}
        while state["step"] < 1000:
            state = work(state)
            if payload.asked():
                payload.save("state", json.dumps(state).encode())
                payload.leave()
"""

import os
import signal
import sys
import tempfile
from typing import Any

EXIT_CODE = 75
"""The exit code of "not done yet" (``EX_TEMPFAIL`` of sysexits.h). Any but 0 would do: 0 means done."""

_asked = False


def listen(number: int = signal.SIGUSR1) -> None:
    """Take notice of the signal that asks for a checkpoint; call it early, in the main thread."""
    signal.signal(number, _notice)


def _notice(number: int, frame: Any) -> None:
    global _asked  # noqa: PLW0603 - a signal handler has nothing else to write to
    _asked = True


def asked() -> bool:
    """Return whether the payload was asked to write its checkpoint and leave."""
    return _asked


def restart_count() -> int:
    """Return how often Slurm started this job before."""
    return int(os.environ.get("DAGSTER_SLURM_RESTART_COUNT") or 0)


def folder() -> str:
    """Return the folder for checkpoints: the same for all starts and attempts of a step. It exists."""
    path = os.environ.get("DAGSTER_SLURM_CHECKPOINT") or "checkpoint"
    os.makedirs(path, exist_ok=True)
    return path


def save(name: str, data: bytes) -> None:
    """Write a checkpoint whole: whoever kills the job now leaves the old one or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=folder(), prefix=".", suffix=".tmp")
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, os.path.join(folder(), name))


def load(name: str) -> bytes | None:
    """Return a checkpoint, or nothing when none was written yet."""
    try:
        with open(os.path.join(folder(), name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def leave() -> None:
    """End the payload as not done yet: with ``requeue_on_timeout`` the job goes back into the queue."""
    sys.exit(EXIT_CODE)
