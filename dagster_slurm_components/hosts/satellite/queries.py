"""Commands on request: within a budget of queries, and one answer for all who ask the same."""

import contextlib
import os
import re
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from dagster_slurm_components.hosts.satellite.calls import Budget, QueueQuery
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
    budget: Optional[Sequence[Any]] = None,
) -> Tuple[Result, bytes]:
    """Run a command with the blob as its input; with a ``budget`` (``spend``) only if that allows it.

    Its outputs come one after the other in the blob; their lengths are in the reply.
    """
    spend(budget)
    command, environment = locate(argv)
    environment.update({native(name): native(value) for name, value in (env or {}).items()})
    done = execute(command, environment, None if cwd is None else native(cwd), blob, command_timeout)
    lengths = {"stdout": len(done.stdout), "stderr": len(done.stderr)}
    return dict(done._asdict(), **lengths), done.stdout + done.stderr


def spend(budget: Optional[Sequence[Any]]) -> None:
    """Take one query from a ``Budget``, if there is one; fail with ``over_budget`` at its end.

    A token bucket in a file, full at first: whoever names the same file, in any process on any machine, shares it.
    """
    if budget is None:
        return
    allowed = Budget(*budget)
    path = native(allowed.path)
    make_folder(os.path.dirname(path))
    with locked(path + b".lock", 10.0):
        now = time.time()
        tokens, filled = allowed.burst, now
        with contextlib.suppress(ValueError):
            tokens, filled = read_json(path) or (allowed.burst, now)
        # max(): a clock that was set back refills nothing.
        tokens = min(allowed.burst, tokens + max(0.0, now - filled) * allowed.per_minute / 60.0)
        granted = tokens >= 1.0
        write_json(path, [tokens - granted, now])
    if not granted:
        raise Failure("over_budget", f"the budget of Slurm queries in {allowed.path} is used up for now")


def snapshot(**query: Any) -> Result:
    """Make a ``QueueQuery`` unless the file at its path holds a younger answer to it; share the answer there.

    A query that is run counts against the ``budget`` (``spend``), a shared answer does not. One process asks at a time.
    Failures are shared as well: a broken controller must not be asked again by everyone in turn.
    """
    wanted = QueueQuery(**query)
    target = native(wanted.path)
    make_folder(os.path.dirname(target))
    stored = _stored_snapshot(target, wanted)
    if stored is None:
        with locked(target + b".lock", wanted.query_timeout, pause=0.02):
            # Asked again under the lock: the holder before us may have published just now.
            stored = _stored_snapshot(target, wanted)
            if stored is None:
                spend(wanted.budget)
                return dict(_take_snapshot(target, wanted), fresh=True)
    return dict(stored, fresh=False)


def _stored_snapshot(path: bytes, query: QueueQuery) -> Optional[Result]:
    stored = read_json(path)
    # abs(): an answer from the future means that a clock was set back, or that two login nodes differ.
    if (
        stored is None
        or stored["argv"] != list(query.argv)
        or abs(time.time() - stored["taken"]) > query.max_age
    ):
        return None
    return {key: value for key, value in stored.items() if key not in ("argv", "asked")}


def _take_snapshot(path: bytes, query: QueueQuery) -> Result:
    command = locate(query.argv)
    asked = time.time()
    done = execute(*command, timeout=query.query_timeout, cap=SNAPSHOT_CAP)
    if done.truncated:
        # A cut queue would make its missing jobs look vanished.
        raise Failure("output_too_long", f"{query.argv[0]} printed more than {SNAPSHOT_CAP} bytes")
    taken = {
        "returncode": done.returncode,
        "stdout": as_text(done.stdout),
        "stderr": as_text(done.stderr),
        "timed_out": done.timed_out,
        "taken": time.time(),
    }
    # When it was asked, too: a job submitted while the query ran need not be in it.
    write_json(path, dict(taken, argv=list(query.argv), asked=asked))
    return taken


def ids_in(pattern: str, output: bytes) -> List[str]:
    """Return the group 1 of a regular expression in each line of an output, each once."""
    matches = [re.search(pattern, line) for line in as_text(output).splitlines()]
    return list(dict.fromkeys(match.group(1) for match in matches if match))
