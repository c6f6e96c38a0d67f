"""Who failed first: each rank leaves a record, and the first node of the job makes them known.

A rank that fails writes ``ranks/WHO.failed``: KEY=VALUE lines. Only the job's first node writes to ``status``,
for appending from several nodes at once loses lines on NFS. It adds `failed_rank=WHO NODE CODE`, where WHO is the
rank's number, or `agent` (torchrun's own process), `head` or `worker` (Ray's).
"""

import os
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Optional, Tuple, Union


def run_directory() -> Path:
    """Return the run directory."""
    return Path(os.environ["DAGSTER_SLURM_RUN_DIR"])


def folder() -> Path:
    """Return the folder of the ranks' records and logs."""
    return run_directory() / "ranks"


def prepare() -> None:
    """Make the folder; what an earlier start of a requeued job left in it is set aside."""
    restart = int(os.environ.get("DAGSTER_SLURM_RESTART_COUNT") or 0)
    if restart and folder().is_dir():
        folder().rename(f"{folder()}.{restart - 1}")
    folder().mkdir(0o700, exist_ok=True)


def own_node() -> str:
    """Return this node's name as Slurm knows it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def say(text: str) -> None:
    """Tell the user: one write, so that the lines of several ranks don't mix."""
    sys.stderr.write(f"dagster-slurm: {text}\n")
    sys.stderr.flush()


def say_not_started(what: str, exc: OSError) -> int:
    """Tell why something can't be run; return the exit code that shells give it."""
    say(f"{what} can't be started: {exc}")
    return 127 if isinstance(exc, FileNotFoundError) else 126


def in_words(code: int) -> str:
    """Describe an exit code.

    >>> in_words(137)
    'was killed by signal 9 (SIGKILL)'
    """
    if code > 128:
        try:
            return f"was killed by signal {code - 128} ({signal.Signals(code - 128).name})"
        except ValueError:
            pass
    return f"ended with exit code {code}"


def tail(path: Union[Path, str], lines: int = 20) -> str:
    """Return the last lines of a log, without terminal colours."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 65536))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(re.sub("\x1b\\[[0-9;]*m", "", text).splitlines()[-lines:])


def record(who: str, code: int, start: int = 0) -> None:
    """Leave a record of a failure; ``start`` counts torchrun's restarts."""
    values = {"who": who, "node": own_node(), "code": code, "start": start, "time": repr(time.time())}
    name = who if who.isdigit() or who == "head" else f"{who}-{own_node()}"
    new = folder() / f"{name}.new"
    new.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    new.rename(folder() / f"{name}.failed")


def succeed() -> None:
    """Leave a record of this node's good end."""
    (folder() / f"{own_node()}.ok").touch()


def succeeded() -> int:
    """Return how many nodes came to a good end."""
    return len(list(folder().glob("*.ok")))


def first_failure() -> Optional[Tuple[str, str, int]]:
    """Return (who, node, code) of the rank that failed first in the last start; None without any record.

    An agent that ends with exit code 1 only reports the failure of one of its ranks.
    """
    failures = []
    for path in folder().glob("*.failed"):
        values = dict(line.split("=", 1) for line in path.read_text().splitlines())
        reports = values["who"] == "agent" and values["code"] == "1"
        order = (reports, -int(values["start"]), float(values["time"]))
        failures.append((order, (values["who"], values["node"], int(values["code"]))))
    return min(failures)[1] if failures else None


def note(**values: str) -> None:
    """Append KEY=VALUE lines to the job's status in one write; for the job's first node only."""
    with open(run_directory() / "status", "a") as file:
        file.write("".join(f"{key}={value}\n" for key, value in values.items()))


def conclude(code: int, stopped: bool = False) -> int:
    """Return the job's exit code: that of the rank that failed first, which is also made known.

    A job that was told to stop blames no rank: what failed before has been survived, by a restart.
    """
    failure = first_failure() if code and not stopped else None
    if failure is None:
        return code
    who, node, own_code = failure
    note(failed_rank=f"{who} {node} {own_code}")
    what = f"rank {who}" if who.isdigit() else f"Ray's {who}" if who in ("head", "worker") else f"the {who}"
    say(f"the job failed because {what} on {node} {in_words(own_code)}")
    return own_code
