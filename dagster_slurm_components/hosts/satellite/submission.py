"""A submission: a bundle and a command make one job, however often they are sent."""

import os
import re
import time
from functools import partial
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

from dagster_slurm_components.hosts.satellite.commands import Completed, execute, locate
from dagster_slurm_components.hosts.satellite.files import make_folder
from dagster_slurm_components.hosts.satellite.leases import Claim, lock_of
from dagster_slurm_components.hosts.satellite.ledger import Ledger
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.hosts.satellite.places import Places
from dagster_slurm_components.hosts.satellite.protocol import Failure, Result, as_text, native
from dagster_slurm_components.hosts.satellite.queries import JOB_ID_LINE, ids_in
from dagster_slurm_components.hosts.satellite.starting import settle_start, start
from dagster_slurm_components.hosts.satellite.unpacking import unpack


def submit(
    blob: bytes,
    run_dir: str,
    workdir: str,
    token: str,
    mode: str,
    argv: Sequence[str],
    lock_timeout: float = 60.0,
    needs: Sequence[str] = (),
    limit: Optional[Result] = None,
    claim: Optional[Result] = None,
    settle_only: bool = False,
    **command: Any,
) -> Tuple[Result, bytes]:
    """Unpack a bundle and submit it, once, however often this is called and wherever it was cut off before.

    Args:
        blob: The run directory's files as tar or tar.gz.
        run_dir: Below ``workdir``; one job for one run directory.
        workdir: Where this project may write.
        token: The job's mark; the same at every call for this run directory.
        mode: ``command``: ``argv`` submits and prints the job's id; ``process``: ``argv`` is the job.
        argv: Run in ``run_dir``.
        lock_timeout: How long to wait for another call on the same run directory.
        needs: Paths without which nothing is submitted.
        limit: How many jobs there may be (``Places``), if that is limited.
        claim: Who submits, and what (``leases.Claim``).
        settle_only: Only find out whether an earlier call made a job; the outcome is ``none`` if it did not.
        command: How to read what the command says (``Command``), for mode ``command``.

    Returns:
        ``outcome``: ``submitted``, ``known`` (by the ledger), ``adopted`` (found by a lookup), ``rejected``,
        ``taken`` (another owner's, or of other content; told in ``detail``), ``lacking`` (one of ``needs``, told in
        ``detail``), ``full`` (by ``limit``; ask again later) or ``uncertain`` (ask again, after ``retry_after``
        seconds if given); ``job_id``; ``returncode``, ``stdout`` and ``stderr`` of the command that decided;
        ``detail``; ``others``: more jobs with this token (there should be none).
    """
    if mode not in ("command", "process") or (mode == "command" and not command.get("lookups")):
        raise Failure("bad_request", "mode is 'process', or 'command' with at least one lookup")
    try:
        how = Command(**command)
    except TypeError as error:
        raise Failure("bad_request", f"submit: {error}") from error
    folder = os.path.normpath(native(run_dir))
    _check_below(folder, native(workdir))
    make_folder(os.path.dirname(folder))
    wish = None if claim is None else Claim(folder, native(workdir), token, claim)
    with locked(lock_of(folder), lock_timeout):
        ledger = Ledger(folder)
        if ledger.token not in (None, token):
            raise Failure("token_mismatch", f"{run_dir} belongs to {ledger.token}, not {token}")
        refusal = wish.refusal() if wish is not None and not settle_only else None
        if refusal is not None:
            return refusal, b""
        known = _known_process(folder, ledger) if mode == "process" else _known_job(ledger, how)
        if known is None and settle_only:
            return {"outcome": "none"}, b""
        unpacked = partial(unpack, blob, folder, token, wish)
        make = partial(_submit_new, unpacked, folder, argv, how if mode == "command" else None)
        return _placed(Places(limit, token), known or _lacking(needs), make), b""


def _placed(places: Places, reply: Optional[Result], make: Callable[[], Result]) -> Result:
    """Return the reply that there is already, or make the job if there is a place for it."""
    if reply is None and not places.take():
        reply = places.full()
    if reply is None:
        try:
            reply = make()
        except (OSError, Failure):
            places.settle({"outcome": "rejected"})
            raise
    places.settle(reply)
    return reply


class Command(NamedTuple):
    """How a command that submits is to be understood.

    Attributes:
        lookups: Commands that list jobs that carry the token, asked when an earlier call's end is not known.
            One that fails proves nothing, and nothing is submitted then.
        id_pattern: Regular expression; group 1 is the id in a line of the command's output; the last counts.
        lookup_pattern: The same for the lookups' output.
        ambiguous: Regular expressions of error texts after which the job may exist all the same.
        window: How long a job may exist without a lookup showing it.
        command_timeout: For the command and for each lookup.
    """

    lookups: Sequence[Sequence[str]] = ()
    id_pattern: str = JOB_ID_LINE
    lookup_pattern: str = r"^(\d+)\|"
    ambiguous: Sequence[str] = ()
    window: float = 300.0
    command_timeout: float = 60.0


def _known_job(ledger: Ledger, how: Command) -> Optional[Result]:
    """Return the job of an earlier call, or why nobody knows yet whether there is one."""
    if ledger.job_id is not None:
        return {"outcome": "known", "job_id": ledger.job_id}
    if ledger.intent is not None:
        return _look_up(ledger, how) or _wait(ledger, how.window)
    return None


def _known_process(folder: bytes, ledger: Ledger) -> Optional[Result]:
    """Return the process of an earlier call, if it became the job."""
    if ledger.job_id is not None and not ledger.released:
        settle_start(folder, ledger)
    return None if ledger.job_id is None else {"outcome": "known", "job_id": ledger.job_id}


def _lacking(needs: Sequence[str]) -> Optional[Result]:
    missing = [path for path in needs if not os.path.lexists(native(path))]
    return {"outcome": "lacking", "detail": missing[0]} if missing else None


def _submit_new(
    unpacked: Callable[[], Ledger], folder: bytes, argv: Sequence[str], how: Optional[Command]
) -> Result:
    if how is None:
        unpacked()
        return start(folder, argv)
    # Found before anything is written: without the program there is nothing to remember.
    command, environment = locate([native(word) for word in argv])
    ledger = unpacked()
    done = execute(command, environment, folder, timeout=how.command_timeout)
    return _conclude(ledger, done, how)


def _check_below(folder: bytes, workdir: bytes) -> None:
    top = os.path.normpath(workdir)
    if not os.path.isabs(top) or not folder.startswith(top + b"/"):
        raise Failure("outside", f"{as_text(folder)} is not below {as_text(workdir)}")


def _look_up(ledger: Ledger, how: Command) -> Optional[Result]:
    failed = None
    for lookup in how.lookups:
        command, environment = locate([native(word) for word in lookup])
        done = execute(command, environment, timeout=how.command_timeout)
        if done.returncode != 0:
            failed = dict(_said(done), outcome="uncertain", detail=f"{lookup[0]} failed")
            continue
        ids = ids_in(how.lookup_pattern, done.stdout)
        if ids:
            ledger.append(("job_id", ids[0]), ("adopted", int(time.time())))
            return {"outcome": "adopted", "job_id": ids[0], "others": ids[1:]}
    return failed


def _wait(ledger: Ledger, window: float) -> Optional[Result]:
    now = int(time.time())
    intent = ledger.intent or 0
    if now < intent:
        # The clock was set back, or another login node's differs: count from now, rather than for ever.
        ledger.append(("intent", now))
        intent = now
    # One more than the window: both seconds are cut off, and a job seen a moment too late is made twice.
    left = intent + window + 1 - now if window else 0
    if left <= 0:
        return None
    return {
        "outcome": "uncertain",
        "retry_after": left,
        "detail": "an earlier submission's end is unknown, and no job with its token is seen yet",
    }


def _conclude(ledger: Ledger, done: Completed, how: Command) -> Result:
    ids = ids_in(how.id_pattern, done.stdout)
    if ids and done.returncode == 0:
        ledger.append(("job_id", ids[-1]), ("submitted", int(time.time())))
        return dict(_said(done), outcome="submitted", job_id=ids[-1])
    if done.timed_out:
        return dict(_said(done), outcome="uncertain", detail="the command did not end in time")
    if done.returncode == 0:
        return dict(_said(done), outcome="uncertain", detail="the command printed no job id")
    # Killed, or an id before a failure (a site's wrapper): a submission got as far as anyone knows.
    if done.returncode < 0 or ids or any(re.search(text, as_text(done.stderr)) for text in how.ambiguous):
        return dict(_said(done), outcome="uncertain", detail="the job may exist all the same")
    ledger.append(("rejected", int(time.time())))
    return dict(_said(done), outcome="rejected")


def _said(done: Completed) -> Result:
    return {"returncode": done.returncode, "stdout": as_text(done.stdout), "stderr": as_text(done.stderr)}
