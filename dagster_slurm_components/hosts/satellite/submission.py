"""A submission: a bundle and a command make one job, however often they are sent."""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from typing import Any, Optional, Sequence

from dagster_slurm_components.hosts.satellite.calls import (
    Completed,
    JobLimit,
    LeaseRequest,
    Process,
    SubmitRequest,
)
from dagster_slurm_components.hosts.satellite.commands import (
    ASIDE,
    NotStartedError,
    execute,
    job_environment,
    locate,
    submission_environment,
)
from dagster_slurm_components.hosts.satellite.files import (
    make_folder,
    make_own_folder,
    read_file,
    remove_tree,
    temporary_name,
)
from dagster_slurm_components.hosts.satellite.leases import Claim, lock_of, read_lease
from dagster_slurm_components.hosts.satellite.ledger import Ledger
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.hosts.satellite.places import Places
from dagster_slurm_components.hosts.satellite.processes import identify, living
from dagster_slurm_components.hosts.satellite.protocol import CHUNK, Failure, Result, as_text, native
from dagster_slurm_components.hosts.satellite.queries import ids_in

MAX_UNPACKED = 4 * 1024 * 1024 * 1024

_CLUSTER = "[A-Za-z0-9][A-Za-z0-9_.-]*"
JOB_ID_LINE = (
    r"^\s*(?:.*Submitted batch job |(?=\S+\s*$))([1-9][0-9]*)"
    + f"(?:;{_CLUSTER}| on cluster {_CLUSTER})?"
    + r"\s*$"
)
"""Regular expression of the line in which sbatch tells the job's id, group 1; a number among other words is none.

``--parsable`` prints ``7`` or ``7;cluster``, but a site's wrapper may drop the option: ``Submitted batch job 7``."""


def submit(blob: bytes, **request: Any) -> Result:
    """Unpack a bundle and submit it, once, however often this is called and wherever it was cut off before.

    ``calls.SubmitRequest`` says what goes in and ``calls.SubmitReply`` what comes out.
    """
    wish = SubmitRequest(**request)
    if wish.mode not in ("command", "process") or (wish.mode == "command" and not wish.lookups):
        raise Failure("bad_request", "mode is 'process', or 'command' with at least one lookup")
    folder = _folder_below(wish.run_dir, wish.workdir)
    claim = Claim(folder, wish.workdir, wish.token, LeaseRequest(*wish.claim)) if wish.claim else None
    places = Places(JobLimit(*wish.limit), wish.token, wish.tasks) if wish.limit else None
    with locked(lock_of(folder), wish.lock_timeout):
        ledger = Ledger(folder)
        if ledger.token not in (None, wish.token):
            raise Failure("token_mismatch", f"{wish.run_dir} belongs to {ledger.token}, not {wish.token}")
        refusal = claim.refusal() if claim and not wish.settle_only else None
        if refusal is not None:
            return {"outcome": "taken", "detail": refusal}
        known = _known_process(folder, ledger) if wish.mode == "process" else _known_job(folder, ledger, wish)
        if known is None and wish.settle_only:
            return {"outcome": "none"}
        reply = known or _lacking(wish.needs) or (places.take() if places else None)
        try:
            reply = reply or (_start if wish.mode == "process" else _run)(wish, blob, folder, claim)
        except (OSError, Failure):
            if places:
                places.settle({"outcome": "rejected"})
            raise
        if places:
            places.settle(reply)
        return reply


def _folder_below(run_dir: str, workdir: str) -> bytes:
    folder, top = os.path.normpath(native(run_dir)), os.path.normpath(native(workdir))
    if not os.path.isabs(top) or not folder.startswith(top + b"/"):
        raise Failure("outside", f"{as_text(folder)} is not below {workdir}")
    make_own_folder(os.path.dirname(folder), top)
    return folder


def _lacking(needs: Sequence[str]) -> Optional[Result]:
    for path in needs:
        if path.endswith("/.ready"):  # a mark of ours: who prunes looks once more before an input goes
            with contextlib.suppress(OSError):
                os.utime(native(path))
    missing = [path for path in needs if not os.path.lexists(native(path))]
    return {"outcome": "lacking", "detail": missing[0]} if missing else None


def _known_job(folder: bytes, ledger: Ledger, wish: SubmitRequest) -> Optional[Result]:
    """Return the job of an earlier call, or why nobody knows yet whether there is one."""
    if ledger.job_id is not None:
        return {"outcome": "known", "job_id": ledger.job_id}
    if ledger.intent is None:
        return None
    own = _own_word(folder)
    return _adopt(ledger, [own]) if own else _look_up(ledger, wish)


def _own_word(folder: bytes) -> Optional[str]:
    """Return the id that a job which has begun calls itself, however long ago, and whatever Slurm has forgotten since.

    An array is called so by any of its elements.
    """
    elements = os.path.join(folder, b"elements")
    is_array = os.path.isdir(elements)
    line = rb"(?m)^array_job_id=([1-9][0-9]*)$" if is_array else rb"(?m)^job_id=([1-9][0-9]*)$"
    for each in [os.path.join(elements, name) for name in os.listdir(elements)] if is_array else [folder]:
        own = re.search(line, read_file(os.path.join(each, b"status")) or b"")
        if own:
            return as_text(own.group(1))
    return None


def _adopt(ledger: Ledger, ids: Sequence[str]) -> Result:
    ledger.append(("job_id", ids[0]), ("adopted", int(time.time())))
    return {"outcome": "adopted", "job_id": ids[0], "others": ids[1:]}


def _look_up(ledger: Ledger, wish: SubmitRequest) -> Optional[Result]:
    """Ask Slurm for the job; nothing once it can't exist.

    Without accounting, or while it fails, the queue alone decides: a job that it does not show has not begun, or its
    own record would say so.
    """
    failed, decided_by_queue = None, True
    for number, lookup in enumerate(wish.lookups):
        done = execute(*locate(lookup), timeout=wish.command_timeout)
        if done.returncode == 0:
            ids = ids_in(r"^(\d+)(?:_\d+)?\|", done.stdout)  # of an array each task has a line
            if ids:
                return _adopt(ledger, ids)
        elif not (wish.no_lookup and re.search(wish.no_lookup, as_text(done.stderr))):
            failed = _reply(done, "uncertain", f"{lookup[0]} failed")
            decided_by_queue = decided_by_queue and number > 0
    if failed is None:
        return _wait(ledger, wish.window)
    if not decided_by_queue:
        return failed
    waiting = _wait(ledger, wish.queue_window)
    return {**waiting, **failed} if waiting else None


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
    detail = "an earlier submission's end is unknown, and no job with its token is seen yet"
    return {"outcome": "uncertain", "retry_after": left, "detail": detail}


def _run(wish: SubmitRequest, bundle: bytes, folder: bytes, claim: Optional[Claim]) -> Result:
    """Submit by a command that prints the job's id."""
    # Found before anything is written: without the program there is nothing to remember.
    program, environment = locate(wish.argv, submission_environment(wish.export))
    ledger = _unpack(bundle, folder, wish.token, claim)
    try:
        done = execute(program, environment, folder, timeout=wish.command_timeout)
    except NotStartedError:
        ledger.append(("rejected", int(time.time())))
        raise
    ids = ids_in(JOB_ID_LINE, done.stdout)
    if done.timed_out:
        return _reply(done, "uncertain", "the command did not end in time")
    if done.returncode == 0:
        if not ids:
            return _reply(done, "uncertain", "the command printed no job id")
        ledger.append(("job_id", ids[-1]), ("submitted", int(time.time())))
        return dict(_reply(done, "submitted"), job_id=ids[-1])
    # Killed, or an id before a failure (a site's wrapper): a submission got as far as anyone knows.
    if done.returncode < 0 or ids or any(re.search(text, as_text(done.stderr)) for text in wish.ambiguous):
        return _reply(done, "uncertain", "the job may exist all the same")
    ledger.append(("rejected", int(time.time())))
    return _reply(done, "rejected")


def _reply(done: Completed, outcome: str, detail: str = "") -> Result:
    return {
        "outcome": outcome,
        "detail": detail,
        "returncode": done.returncode,
        "stdout": as_text(done.stdout),
        "stderr": as_text(done.stderr),
    }


def _unpack(bundle: bytes, folder: bytes, token: str, claim: Optional[Claim]) -> Ledger:
    """Make the run directory from a bundle, with a lease and an intent in its ledger; older ones are kept."""
    temporary = temporary_name(folder)
    try:
        os.mkdir(temporary, 0o700)
        _extract(bundle, temporary)
        if not os.path.isdir(folder):
            # Renamed with both inside: there is no moment at which the folder lacks its ledger or its lease.
            ledger = Ledger(temporary)
            ledger.append(("token", token), ("intent", int(time.time())))
            if claim is not None:
                claim.write(temporary)
            os.rename(temporary, folder)
        else:
            for name in os.listdir(temporary):
                remove_tree(os.path.join(folder, name))
                os.rename(os.path.join(temporary, name), os.path.join(folder, name))
            if claim is not None and read_lease(folder) is None:
                claim.write(folder)  # it had lost its records, as by a removal that was cut off
            Ledger(folder).append(("token", token), ("intent", int(time.time())))
    finally:
        remove_tree(temporary)
    return Ledger(folder)


def _extract(bundle: bytes, folder: bytes) -> None:
    # By hand: tarfile's extraction filters came with 3.12, and a bundle is only ever files and folders.
    mode: Any = "r:gz" if bundle[:2] == b"\x1f\x8b" else "r:"
    total = 0
    try:
        with tarfile.open(
            fileobj=io.BytesIO(bundle), mode=mode, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for member in tar:
                path = _safe_path(member, folder)
                total += member.size
                if total > MAX_UNPACKED:
                    raise Failure("unsafe_bundle", f"the bundle unpacks to more than {MAX_UNPACKED} bytes")
                if member.isdir():
                    make_folder(path)
                else:
                    make_folder(os.path.dirname(path))
                    _extract_file(tar, member, path)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the bundle's (gzip says OSError without a number)
        raise Failure("bad_bundle", f"the bundle can't be read: {error}") from error


def _safe_path(member: tarfile.TarInfo, folder: bytes) -> bytes:
    name = native(member.name)
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    plain = member.isdir() or (member.isreg() and not member.issparse() and parts)
    if not plain or name.startswith(b"/") or b".." in parts or parts in ([b"ledger"], [b"lease"]):
        raise Failure("unsafe_bundle", f"the bundle holds {member.name!r}, which may not be in one")
    return os.path.join(folder, *parts)


def _extract_file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: bytes) -> None:
    mode = 0o700 if member.mode & 0o111 else 0o600
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise Failure("unsafe_bundle", f"the bundle holds {member.name!r} twice") from None
    source = tar.extractfile(member)
    with os.fdopen(descriptor, "wb") as target:
        if source is not None:
            shutil.copyfileobj(source, target, CHUNK)


_GATE = (
    ASIDE
    + b"""
IFS= read -r word && [ "$word" = go ] || exit 75
printf 'released=%s\\n' "$$" >>ledger || exit 75
exec "$@" </dev/null
"""
)
"""The started process waits here until its id is in the ledger; without the word it ends and ran nothing."""


def _start(wish: SubmitRequest, bundle: bytes, folder: bytes, claim: Optional[Claim]) -> Result:
    """Start a job in its run directory; its id is in the ledger before it runs."""
    environment = job_environment(wish.export)
    ledger = _unpack(bundle, folder, wish.token, claim)
    logs = [
        os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for name in (b"stdout.log", b"stderr.log")
    ]
    try:
        process: Any = subprocess.Popen(
            [b"/bin/sh", b"-c", _GATE, b"sh", *(native(word) for word in wish.argv)],
            stdin=subprocess.PIPE,
            stdout=logs[0],
            stderr=logs[1],
            cwd=folder,
            env=environment,
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
    # In a long-lived process somebody has to collect the exit, or a zombie stays; it counts as ended.
    with contextlib.suppress(RuntimeError):  # no thread is to be had, and the job runs
        threading.Thread(target=process.wait, name=f"reaper-{process.pid}", daemon=True).start()
    return {"outcome": "submitted", "job_id": job_id}


def _known_process(folder: bytes, ledger: Ledger) -> Optional[Result]:
    """Return the process of an earlier call, if it became the job; if not, the ledger says so."""
    if ledger.job_id is None:
        return None
    process = Process.parse(ledger.job_id)
    patience = time.monotonic() + 5.0
    # Whoever started it was perhaps killed before the process was let go.
    while not ledger.released:
        (waiting,) = living([process])
        # Read after looking: a process that has ended since may have been the job.
        if Ledger(folder).released:
            break
        if not waiting:
            ledger.append(("void", int(time.time())))
            return None
        if time.monotonic() > patience:  # a process forked from its starter may hold the gate's pipe open
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.02)
    return {"outcome": "known", "job_id": ledger.job_id}
