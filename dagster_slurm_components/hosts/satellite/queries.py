"""Commands on request: within a budget of queries, and one answer for all who ask the same."""

import contextlib
import os
import re
import time
from typing import Dict, List, Optional, Sequence, Tuple

from dagster_slurm_components.hosts.satellite.commands import execute, locate
from dagster_slurm_components.hosts.satellite.files import make_folder, read_json, write_json
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.hosts.satellite.protocol import Failure, Result, as_text, native

SNAPSHOT_CAP = 128 * 1024 * 1024


def run(
    blob: bytes,
    argv: Sequence[str],
    cwd: Optional[str] = None,
    env: Optional[Dict[str, str]] = None,
    command_timeout: float = 60.0,
    budget: Optional[Result] = None,
) -> Tuple[Result, bytes]:
    """Run a command with the blob as its input; with a ``budget`` (``spend``) only if that allows it.

    Its outputs come one after the other in the blob; their lengths are in the reply.
    """
    spend(budget)
    command, environment = locate([native(word) for word in argv])
    environment.update({native(name): native(value) for name, value in (env or {}).items()})
    done = execute(command, environment, None if cwd is None else native(cwd), blob, command_timeout)
    return {
        "returncode": done.returncode,
        "timed_out": done.timed_out,
        "truncated": done.truncated,
        "stdout": len(done.stdout),
        "stderr": len(done.stderr),
    }, done.stdout + done.stderr


def spend(budget: Optional[Result]) -> None:
    """Take one query from a budget (``hosts.calls.Budget``), if there is one; fail with ``over_budget`` at its end.

    A token bucket in a file, full at first: whoever names the same file, in any process on any machine, shares it.
    """
    if budget is None:
        return
    path, burst = native(budget["path"]), float(budget["burst"])
    make_folder(os.path.dirname(path))
    with locked(path + b".lock", 10.0):
        now = time.time()
        tokens, filled = burst, now
        with contextlib.suppress(ValueError):
            tokens, filled = read_json(path) or (burst, now)
        # max(): a clock that was set back refills nothing.
        tokens = min(burst, tokens + max(0.0, now - filled) * float(budget["per_minute"]) / 60.0)
        granted = tokens >= 1.0
        write_json(path, [tokens - granted, now])
    if not granted:
        raise Failure("over_budget", f"the budget of Slurm queries in {budget['path']} is used up for now")


def snapshot(
    path: str,
    argv: Sequence[str],
    max_age: float,
    query_timeout: float,
    budget: Optional[Result] = None,
) -> Result:
    """Run a query unless the file at ``path`` holds a younger answer to it; share the answer there.

    A query that is run counts against the ``budget`` (``spend``), a shared answer does not. One process asks at a time.
    Failures are shared as well: a broken controller must not be asked again by everyone in turn.
    """
    target = native(path)
    make_folder(os.path.dirname(target))
    stored = _stored_snapshot(target, argv, max_age)
    if stored is None:
        with locked(target + b".lock", query_timeout, pause=0.02):
            # Asked again under the lock: the holder before us may have published just now.
            stored = _stored_snapshot(target, argv, max_age)
            if stored is None:
                spend(budget)
                return dict(_take_snapshot(target, argv, query_timeout), fresh=True)
    return dict(stored, fresh=False)


def _stored_snapshot(path: bytes, argv: Sequence[str], max_age: float) -> Optional[Result]:
    stored = read_json(path)
    # abs(): an answer from the future means that a clock was set back, or that two login nodes differ.
    if stored is None or stored["argv"] != list(argv) or abs(time.time() - stored["taken"]) > max_age:
        return None
    return {key: value for key, value in stored.items() if key not in ("argv", "asked")}


def _take_snapshot(path: bytes, argv: Sequence[str], timeout: float) -> Result:
    command, environment = locate([native(word) for word in argv])
    asked = time.time()
    done = execute(command, environment, timeout=timeout, cap=SNAPSHOT_CAP)
    if done.truncated:
        # A cut queue would make its missing jobs look vanished.
        raise Failure("output_too_long", f"{argv[0]} printed more than {SNAPSHOT_CAP} bytes")
    taken = {
        "returncode": done.returncode,
        "stdout": as_text(done.stdout),
        "stderr": as_text(done.stderr),
        "timed_out": done.timed_out,
        "taken": time.time(),
    }
    # When it was asked, too: a job submitted while the query ran need not be in it.
    write_json(path, dict(taken, argv=list(argv), asked=asked))
    return taken


_CLUSTER = "[A-Za-z0-9][A-Za-z0-9_.-]*"
JOB_ID_LINE = (
    r"^\s*(?:.*Submitted batch job |(?=\S+\s*$))([1-9][0-9]*)"
    + f"(?:;{_CLUSTER}| on cluster {_CLUSTER})?"
    + r"\s*$"
)
"""Regular expression of the line in which sbatch tells the job's id, group 1; a number among other words is none.

``--parsable`` prints ``7`` or ``7;cluster``, but a site's wrapper may drop the option: ``Submitted batch job 7``."""


def ids_in(pattern: str, output: bytes) -> List[str]:
    """Return the group 1 of a regular expression in each line of an output, each once."""
    matches = [re.search(pattern, line) for line in as_text(output).splitlines()]
    return list(dict.fromkeys(match.group(1) for match in matches if match))
