"""The lease of a run directory: who follows its job, with which content, and what became of its results.

A file ``lease`` beside the ledger, one JSON object. It is changed under the lock of the call's folder alone, and only
by who names its epoch: taking a job over makes the epoch grow, and whoever knew the old one is refused from then on.

* ``version`` of these records; ``token``: the mark that the job carries in its name
* ``epoch``: how often somebody took the job over, from 1; ``owner``: who did last
* ``state``: ``following``, ``cancel wanted``, ``cancelled``, ``ended`` or ``collected``; of a job that its
  step left ``left``, which is anybody's who names the epoch, and ``reporting``, while the owner reports how it ended
* ``digest``: hash of all that the job is made of; ``content``: the same without what it asks of Slurm
* ``outcome``: Slurm's word for its end, and ``finished``: when the owner heard of it, by the owner's clock
* ``renewed``: epoch of the last sign of life of who follows; ``shown``: what a person has seen of the output
* ``note``: what the owner keeps for whoever takes over

The folder ``open`` of the working folder holds one file for each lease that somebody may still have to act on: a look
at all of them never walks through the run directories of the past.
"""

import contextlib
import json
import os
import time
from typing import Any, Dict, List, Optional, Tuple

from dagster_slurm_components.hosts.satellite.calls import LeaseRequest
from dagster_slurm_components.hosts.satellite.files import (
    make_folder,
    read_file,
    remove_tree,
    write_atomically,
    write_json,
)
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.hosts.satellite.protocol import Failure, Result, as_text, native

VERSION = 1
FOLLOWING, CANCEL_WANTED, CANCELLED = "following", "cancel wanted", "cancelled"
ENDED, COLLECTED = "ended", "collected"
LEFT, REPORTING = "left", "reporting"
_NEXT: Dict[str, Tuple[str, ...]] = {
    FOLLOWING: (CANCEL_WANTED, CANCELLED, ENDED, LEFT),
    LEFT: (CANCEL_WANTED, REPORTING),
    REPORTING: (COLLECTED, ENDED, CANCELLED),
    CANCEL_WANTED: (CANCELLED, ENDED),
    ENDED: (COLLECTED, CANCELLED),
    CANCELLED: (),
    COLLECTED: (),
}
SUCCESS = "COMPLETED"
"""The outcome whose results are worth collecting."""
RENEW = 20.0
"""Seconds between two signs of life in the file, where nothing else is written: each is a rename on a shared disk."""
_JUST_MADE = 3600.0


def lock_of(folder: bytes) -> bytes:
    """Return the lock of all attempts beside a run directory; no step or partition is called so."""
    return os.path.join(os.path.dirname(folder), b".lock")


def read_lease(folder: bytes) -> Optional[Result]:
    """Return the lease of a run directory; of one that an older release made, a lease that fits no content."""
    path = os.path.join(folder, b"lease")
    text = read_file(path)
    if text is None:
        submitted = os.path.exists(os.path.join(folder, b"ledger"))
        return _new("", "", "", None, {}, epoch=0) if submitted else None
    try:
        return parsed(text)
    except ValueError:
        why = "is no lease; once it is removed, what it was for counts as a job of other content"
        raise Failure("bad_lease", f"{as_text(path)} {why}") from None


def parsed(text: bytes) -> Result:
    """Read a lease's text, of a newer release's its version alone; raises ValueError when it is none."""
    lease = json.loads(text.decode("ascii"))
    if not isinstance(lease, dict) or not isinstance(lease.get("version"), int):
        raise ValueError("no lease")
    if lease["version"] == VERSION and not (set(lease) >= _KEYS and lease["state"] in _NEXT):
        raise ValueError("no lease of this version")
    return lease


def _new(
    token: str, digest: str, content: str, owner: Optional[Result], note: Result, epoch: int = 1
) -> Result:
    return {
        "version": VERSION,
        "token": token,
        "epoch": epoch,
        "state": FOLLOWING,
        "digest": digest,
        "content": content,
        "owner": owner,
        "renewed": time.time(),
        "outcome": None,
        "finished": None,
        "shown": {},
        "note": note,
    }


_KEYS = frozenset(_new("", "", "", None, {}))


def is_open(lease: Result) -> bool:
    """Whether somebody may still have to act on a job: follow it, end it, or collect or report what it did."""
    if lease["version"] != VERSION:
        return True  # for who can read it to say
    return lease.get("state") in (FOLLOWING, CANCEL_WANTED, LEFT, REPORTING) or is_to_collect(lease)


def is_to_collect(lease: Result) -> bool:
    """Whether a job did its work, and nobody has said that Dagster has its results."""
    return lease.get("state") == ENDED and lease.get("outcome") == SUCCESS


def attempts_in(folder: bytes) -> List[int]:
    """Return the numbers of the attempts in a call's folder, in order."""
    return sorted(int(name) for name in _names_in(folder) if name.isdigit())


def _names_in(folder: bytes) -> List[bytes]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


class Claim:
    """A wish to submit, under the lock of the call's folder."""

    def __init__(self, folder: bytes, workdir: str, token: str, claim: LeaseRequest) -> None:
        self._folder = folder
        self._call, self._name = os.path.split(folder)
        self._workdir = workdir
        self._token = token
        self._claim = claim

    def refusal(self) -> Optional[str]:
        """Return why this submission may not be made: somebody else's job is there, or one of other content."""
        lease = read_lease(self._folder)
        epoch = self._claim.epoch
        if lease is None:
            return None if epoch is None and not self._has_rival() else "another attempt"
        if lease["version"] != VERSION:
            return f"its lease is of version {lease['version']}"
        if lease["digest"] != self._claim.digest:
            return "it has other content"
        # The same first submission once more, its reply was lost; or a job that was taken over just now, perhaps after
        # its end: its results are still to be collected.
        mine = lease["epoch"] == (1 if epoch is None else epoch) and lease["owner"] == self._claim.owner
        taken_over = epoch is not None and (lease["state"] == LEFT or is_to_collect(lease))
        allowed = mine and (lease["state"] == FOLLOWING or taken_over)
        return None if allowed else "somebody else follows it"

    def _others(self) -> List[int]:
        return [number for number in attempts_in(self._call) if number != int(self._name)]

    def _has_rival(self) -> bool:
        leases = [read_lease(os.path.join(self._call, b"%d" % number)) for number in self._others()]
        # The job of one that is being reported is over.
        return any(
            lease is not None and is_open(lease) and lease.get("state") != REPORTING for lease in leases
        )

    def write(self, folder: bytes) -> None:
        """Write a new lease into a run directory that is being made, and make it known."""
        entry = _entry(self._workdir, self._token)
        make_folder(os.path.dirname(entry))
        write_atomically(entry, self._folder)
        claim = self._claim
        lease = _new(self._token, claim.digest, claim.content, claim.owner, claim.note)
        write_json(os.path.join(folder, b"lease"), lease, durable=True)
        self._set_checkpoint_aside()

    def _set_checkpoint_aside(self) -> None:
        """A checkpoint is for the next attempt at the same content; after a success the work begins anew."""
        earlier = self._others()
        if not earlier:
            return
        before = read_lease(os.path.join(self._call, b"%d" % earlier[-1])) or {}
        goes_on = before.get("content") == self._claim.content and before.get("outcome") != SUCCESS
        checkpoint = os.path.join(self._call, b"checkpoint")
        if not goes_on and os.path.lexists(checkpoint):
            aside = os.path.join(self._call, b"checkpoint-%d" % earlier[-1])
            remove_tree(aside)
            os.rename(checkpoint, aside)


def _entry(workdir: str, token: str) -> bytes:
    return os.path.join(native(workdir), b"open", token.encode())


def change_lease(
    run_dir: str,
    workdir: str,
    epoch: int,
    state: Optional[str] = None,
    owner: Optional[Result] = None,
    outcome: Optional[str] = None,
    finished: Optional[float] = None,
    shown: Optional[Result] = None,
    lock_timeout: float = 60.0,
) -> Result:
    """Change the lease of a run directory, if its epoch is the one given and the state is reached from the present one.

    With an ``owner``, who takes the job over, the epoch grows by one. Returns ``changed``: whether it was, and
    ``lease`` as it is now. A change that was made already, by a call whose reply was lost, counts as made.
    """
    folder = os.path.normpath(native(run_dir))
    with locked(lock_of(folder), lock_timeout):
        lease = read_lease(folder)
        if lease is None or lease["version"] != VERSION:
            return {"changed": False, "lease": lease}
        repeated = owner is not None and lease["owner"] == owner and lease["epoch"] == epoch + 1
        if repeated:
            epoch += 1
        if lease["epoch"] != epoch or state not in (None, lease["state"], *_NEXT[lease["state"]]):
            return {"changed": False, "lease": lease}
        if owner is not None and not repeated:
            lease.update(owner=owner, epoch=epoch + 1)
        if outcome is not None:
            lease.update(outcome=outcome, finished=finished)
        lease.update(state=state or lease["state"], shown=lease["shown"] if shown is None else shown)
        lease["renewed"] = time.time()
        write_json(os.path.join(folder, b"lease"), lease, durable=True)
        if not is_open(lease) and lease["token"]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_entry(workdir, lease["token"]))
            _remove_variables(folder)
    return {"changed": True, "lease": lease}


def _remove_variables(folder: bytes) -> None:
    """Remove the payload's variables, secrets among them, once nobody follows the job any more.

    Not at the job's own end: Slurm starts a job anew, well as it ended, if its node is not heard of just then (22.05).
    """
    elements = os.path.join(folder, b"elements")
    for each in [folder, *(os.path.join(elements, name) for name in _names_in(elements))]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(os.path.join(each, b"job.env"))


def renew(run_dir: str, epoch: int, shown: Optional[Result]) -> List[Any]:
    """Give a sign of life, with what a person has seen; return the epoch and state that the lease has.

    One that can't be read or written, as on a full disk, keeps nobody from reading this job's files, or another's: what
    is wrong is told to whoever wants to change it. Its state is empty then.
    """
    folder = os.path.normpath(native(run_dir))
    try:
        lease = read_lease(folder)
    except (Failure, OSError):
        return [epoch, ""]
    if lease is None:
        return [0, ""]
    # abs(): a clock that was set back makes nobody silent for ever.
    if _is_of(lease, epoch) and (shown is not None or abs(time.time() - lease["renewed"]) >= RENEW):
        # Whoever changes it meanwhile gives a sign of life as well.
        with contextlib.suppress(Failure, OSError), locked(lock_of(folder), 1.0):
            lease = read_lease(folder) or lease
            if _is_of(lease, epoch):
                lease.update(renewed=time.time(), shown=lease["shown"] if shown is None else shown)
                write_json(os.path.join(folder, b"lease"), lease)
    return [lease.get("epoch", 0), lease.get("state", "")]


def _is_of(lease: Result, epoch: int) -> bool:
    return (lease["version"], lease.get("epoch")) == (VERSION, epoch)


def attempts(folder: str) -> Result:
    """Return ``attempts`` of a call: ``AttemptFiles`` each, in order."""
    top = os.path.normpath(native(folder))
    rows = [_row(os.path.join(top, b"%d" % number)) for number in attempts_in(top)]
    return {"attempts": [row for row in rows if row is not None]}


def open_leases(workdir: str) -> Result:
    """Return ``attempts`` (as the operation of that name) on which somebody may still have to act, and ``time``."""
    index = os.path.join(native(workdir), b"open")
    rows = []
    for name in sorted(_names_in(index)):
        path = os.path.join(index, name)
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            folder = read_file(path)
            row = None if folder is None else _row_if_readable(folder)
            if row is not None and is_open(row[1]):
                rows.append(row)
            elif time.time() - os.stat(path).st_mtime > _JUST_MADE:
                # Its folder was removed, or never made. One that is just being made shows here first.
                os.unlink(path)
    return {"attempts": rows, "time": time.time()}


def _row_if_readable(folder: bytes) -> Optional[List[Any]]:
    """Return a row; where the lease can't be read, one that nobody here can judge, as of a newer release (D21)."""
    try:
        return _row(folder)
    except Failure as failure:
        if failure.code != "bad_lease":
            raise
        return [as_text(folder), {"version": VERSION + 1, "unreadable": failure.message}, ""]


def _row(folder: bytes) -> Optional[List[Any]]:
    lease = read_lease(folder)
    if lease is None:
        return None
    return [as_text(folder), lease, as_text(read_file(os.path.join(folder, b"ledger")) or b"")]
