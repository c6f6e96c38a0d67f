"""Commands on request, and Slurm's answers that all who ask the same share, with their true age."""

import os
import re
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from dagster_slurm_components.hosts.satellite.budget import spend
from dagster_slurm_components.hosts.satellite.calls import AccountingQuery, Budget, Completed, QueueQuery
from dagster_slurm_components.hosts.satellite.commands import execute, locate
from dagster_slurm_components.hosts.satellite.files import make_folder, read_json, write_json
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.hosts.satellite.protocol import Failure, Result, as_text, native

SNAPSHOT_CAP = 128 * 1024 * 1024
_SKEW = 5.0
"""Seconds by which the clocks of two login nodes may differ; an answer from further in the future has no age."""
_KEPT = 300.0
"""Seconds for which an answer of the accounting is kept for others, and a wish of somebody else for them."""
_FAILURE_PAUSES = (20.0, 300.0)
"""Seconds for which an accounting that failed is left alone, at first and at most."""


def run(
    blob: bytes,
    argv: Sequence[str],
    cwd: Optional[str] = None,
    env: Optional[Dict[str, str]] = None,
    command_timeout: float = 60.0,
) -> Tuple[Result, bytes]:
    """Run a command with the blob as its input.

    Its outputs come one after the other in the blob; their lengths are in the reply.
    """
    command, environment = locate(argv)
    environment.update({native(name): native(value) for name, value in (env or {}).items()})
    done = execute(command, environment, None if cwd is None else native(cwd), blob, command_timeout)
    lengths = {"stdout": len(done.stdout), "stderr": len(done.stderr)}
    return dict(done._asdict(), **lengths), done.stdout + done.stderr


def snapshot(**query: Any) -> Result:
    """Make a ``QueueQuery`` unless the file at its path holds a younger answer to it; share the answer there.

    A query that is run counts against the ``budget``, a shared answer does not: where the budget allows none, the
    shared answer is returned as old as it is. One process asks at a time. Failures are shared as well: a broken
    controller must not be asked again by everyone in turn.
    """
    wanted = QueueQuery(**query)
    budget = Budget(*wanted.budget) if wanted.budget else None
    target = native(wanted.path)
    make_folder(os.path.dirname(target))
    now = time.time()
    since = now - wanted.max_age
    stored = _stored_snapshot(target, wanted)
    if stored is None or stored["asked"] < since:
        with locked(target + b".lock", wanted.query_timeout, pause=0.02):
            # Asked again under the lock: the holder before us may have published just now.
            stored = _stored_snapshot(target, wanted)
            if stored is None or stored["asked"] < since:
                if spend(budget, "spare" if wanted.spare else "queue", wanted.spare):
                    return dict(_take_snapshot(target, wanted), age=0.0, fresh=True)
                if stored is None:
                    raise Failure(
                        "over_budget", f"the budget of Slurm queries in {wanted.path} is used up for now"
                    )
    return dict(stored, age=max(0.0, now - stored["asked"]), fresh=False)


def _stored_snapshot(path: bytes, query: QueueQuery) -> Optional[Result]:
    stored = read_json(path)
    if stored is None or stored["argv"] != list(query.argv):
        return None
    # An answer from the future means that a clock was set back.
    if stored["asked"] > time.time() + _SKEW:
        return None
    return {key: stored[key] for key in ("asked", "returncode", "stdout", "stderr", "timed_out")}


def _take_snapshot(path: bytes, query: QueueQuery) -> Result:
    # When it was asked: a job submitted while the query runs need not be in it.
    asked, done = _ask(query.argv, query.query_timeout)
    taken = {
        "returncode": done.returncode,
        "stdout": as_text(done.stdout),
        "stderr": as_text(done.stderr),
        "timed_out": done.timed_out,
        "asked": asked,
    }
    write_json(path, dict(taken, argv=list(query.argv)))
    return taken


def _ask(argv: Sequence[str], timeout: float) -> Tuple[float, Completed]:
    command = locate(argv)
    asked = time.time()
    done = execute(*command, timeout=timeout, cap=SNAPSHOT_CAP)
    if done.truncated:
        # A cut queue would make its missing jobs look vanished.
        raise Failure("output_too_long", f"{argv[0]} printed more than {SNAPSHOT_CAP} bytes")
    return asked, done


def accounting(**query: Any) -> Result:
    """Answer an ``AccountingQuery`` by what others asked lately, and by one query for all jobs that somebody wants.

    What a query could not be made for is left as a wish: whoever may ask next asks for it as well. After a failure
    the accounting is left alone for a while, by everybody.
    """
    wanted = AccountingQuery(**query)
    budget = Budget(*wanted.budget) if wanted.budget else None
    target = native(wanted.path)
    make_folder(os.path.dirname(target))
    now = time.time()
    with locked(target + b".lock", wanted.query_timeout, pause=0.02):
        board = _board(target, now)
        rows = board["rows"]
        missing = [job_id for job_id, age in wanted.jobs if rows.get(job_id, [0.0])[0] < now - age]
        board["wishes"].update(dict.fromkeys(missing, now))
        pause = (
            min(_FAILURE_PAUSES[1], _FAILURE_PAUSES[0] * 2 ** (board["failures"] - 1))
            if board["failures"]
            else 0
        )
        fresh = bool(missing) and now >= board["failed"] + pause and spend(budget, "accounting", wanted.spare)
        if fresh:
            others = [job_id for job_id in board["wishes"] if job_id not in missing]
            _fill(board, wanted, [*missing, *others][: wanted.most])
        if missing:
            write_json(target, board)
    answers = {job_id: rows[job_id] for job_id, _ in wanted.jobs if job_id in rows}
    told = {job_id: [max(0.0, now - asked), text] for job_id, (asked, text) in answers.items()}
    failed_age = max(0.0, now - board["failed"])
    return {"answers": told, "failed_age": failed_age, "said": board["said"], "fresh": fresh}


def _board(path: bytes, now: float) -> Result:
    """Return what the file at a path holds: rows by job and when they were asked for, wishes, and failures in turn."""
    board: Result = {"rows": {}, "wishes": {}, "failed": 0.0, "failures": 0, "said": ""}
    board.update(read_json(path) or {})
    board["rows"] = {key: row for key, row in board["rows"].items() if abs(now - row[0]) < _KEPT}
    board["wishes"] = {key: at for key, at in board["wishes"].items() if abs(now - at) < _KEPT}
    board["failed"] = min(now, board["failed"])
    return board


def _fill(board: Result, query: AccountingQuery, job_ids: Sequence[str]) -> None:
    """Ask for jobs, and note the answer."""
    asked, done = _ask([*query.argv, "--jobs=" + ",".join(job_ids)], query.query_timeout)
    # sacct 20.11 may end with 0 when it reached nobody.
    if done.returncode != 0 or done.timed_out or (not done.stdout.strip() and b"error" in done.stderr):
        board["failed"], board["failures"] = asked, board["failures"] + 1
        board["said"] = as_text(done.stderr)[-1000:]
        return
    board["failures"], board["said"] = 0, ""
    lines: Dict[str, List[str]] = {job_id: [] for job_id in job_ids}
    for line in as_text(done.stdout).splitlines():
        name = re.split(r"[.|]", line.strip(), maxsplit=1)[0]
        for job_id in {name, name.partition("_")[0]}:  # who asks for an array wants all its tasks
            lines.get(job_id, []).append(line)
    for job_id in job_ids:
        board["rows"][job_id] = [asked, "\n".join(lines[job_id])]
        board["wishes"].pop(job_id, None)


def ids_in(pattern: str, output: bytes) -> List[str]:
    """Return the group 1 of a regular expression in each line of an output, each once."""
    matches = [re.search(pattern, line) for line in as_text(output).splitlines()]
    return list(dict.fromkeys(match.group(1) for match in matches if match))
