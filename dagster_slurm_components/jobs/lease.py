"""Who follows a job, with which content, and whether its results were handed over: the lease of its run directory.

The satellite keeps it and changes it by compare-and-set (``hosts/satellite/leases.py``); what it means is decided here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite import leases
from dagster_slurm_components.hosts.satellite.calls import AttemptFiles
from dagster_slurm_components.hosts.satellite.leases import (
    CANCEL_WANTED,
    CANCELLED,
    COLLECTED,
    ENDED,
    FOLLOWING,
    LEFT,
    REPORTING,
    SUCCESS,
)
from dagster_slurm_components.hosts.satellite.ledger import Entries
from dagster_slurm_components.hosts.satellite.protocol import Failure
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.owner import Owner

__all__ = [
    "CANCELLED",
    "CANCEL_WANTED",
    "COLLECTED",
    "ENDED",
    "FOLLOWING",
    "LEFT",
    "REPORTING",
    "SUCCESS",
]

LEASE, LEDGER = "lease", "ledger"
"""Their files in a run directory."""


@dataclass(frozen=True)
class OutputPosition:
    """How much of a job's output a person has been shown, so that whoever takes the job over goes on from there.

    By file: how many bytes, and of which one: a requeued job begins a new messages file.
    """

    offsets: Mapping[str, int] = field(default_factory=dict)
    inodes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ArrayPosition(OutputPosition):
    """How much of an array was handed over: elements, as ``slurm.arrays.ranges`` writes them.

    Attributes:
        collected: Those whose results Dagster has stored.
        failed_checks: Those that failed a check, by check.
    """

    collected: str = ""
    failed_checks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """What the owner of an attempt keeps for whoever takes it over.

    Attributes:
        retries: How often each outcome has been answered by another attempt.
        changed: Slurm options that a retry policy changed.
        upstream: Which run made what the job reads, by upstream step.
        elements: The elements of an array, as ``slurm.arrays.ranges`` writes them; its tasks run so many each.
    """

    retries: Mapping[str, int] = field(default_factory=dict)
    changed: Mapping[str, str] = field(default_factory=dict)
    upstream: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""
    step: str = ""
    elements: str = ""
    keys_per_task: int = 1


@dataclass(frozen=True)
class Lease:
    """A lease.

    Attributes:
        epoch: How often somebody took the job over, from 1; 0 where an older release made none.
        state: ``following``, ``cancel wanted``, ``cancelled``, ``ended`` or ``collected``; ``left`` and ``reporting``
            of a job that its step left to the sensor.
        digest: Hash of all that the job is made of.
        renewed: When who follows gave the last sign of life, in seconds since the epoch by the host's clock.
        outcome: Slurm's word for its end.
        finished: When its owner heard of that, in seconds since the epoch by the owner's clock.
        newer: Whether a newer release of this package wrote it, or it is damaged: it is left alone then.
    """

    epoch: int = 0
    state: str = FOLLOWING
    digest: str = ""
    owner: Owner | None = None
    renewed: float = 0.0
    outcome: str | None = None
    finished: float | None = None
    shown: OutputPosition = field(default_factory=OutputPosition)
    note: Note = field(default_factory=Note)
    newer: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether the job did its work."""
        return self.outcome == leases.SUCCESS

    @property
    def open(self) -> bool:
        """Whether it is in the way of another attempt: its job is not over, or did what nobody has collected.

        One that is just being reported is neither.
        """
        return self.state in (FOLLOWING, CANCEL_WANTED, LEFT) or (self.state == ENDED and self.succeeded)

    @property
    def left(self) -> bool:
        """Whether its step left it, so that the sensor reports what comes of the job."""
        return self.state in (LEFT, REPORTING)


def read_lease(text: bytes) -> Lease:
    """Read the text of a lease; one that is damaged can't be judged, as one of a newer release."""
    try:
        return parse_lease(leases.parsed(text) if text else None)
    except ValueError:
        return Lease(newer=True)


def parse_lease(raw: Mapping[str, Any] | None) -> Lease:
    """Read a lease; one of a newer release says no more than that."""
    if raw is None:
        return Lease()
    if raw["version"] > leases.VERSION:
        return Lease(newer=True)
    plain = {name: raw[name] for name in ("epoch", "state", "digest", "renewed", "outcome", "finished")}
    owner = Owner(**raw["owner"]) if raw["owner"] else None
    position = ArrayPosition if "collected" in (raw["shown"] or {}) else OutputPosition
    shown, note = position(**raw["shown"] or {}), Note(**raw["note"] or {})
    return Lease(**plain, owner=owner, shown=shown, note=note)


@dataclass(frozen=True)
class LedgerRecord:
    """A ledger: the job's mark, its id where it is known to exist, and when the host's clock saw it submitted."""

    token: str
    job_id: str | None
    submitted: float | None

    def handle(self, run_dir: str) -> JobHandle | None:
        """Return the job, if there is one."""
        return JobHandle(self.job_id, run_dir, "known", self.submitted) if self.job_id else None


def parse_ledger(data: bytes) -> LedgerRecord:
    r"""Read a ledger; see ``satellite.ledger.Entries`` for its lines.

    One that can't be read names no job: the satellite refuses to submit or settle it, and says why.

    Example:
        >>> parse_ledger(b"token=ab\nintent=5\njob_id=12\nsubmitted=6\n").job_id
        '12'
    """
    entries = Entries()
    try:
        entries.read(data.decode("utf-8", "replace"))
    except Failure:
        return LedgerRecord("", None, None)
    submitted = None if entries.submitted is None else float(entries.submitted)
    return LedgerRecord(entries.token or "", entries.job_id, submitted)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a call, from 0, as the lease and the ledger in its run directory tell of it."""

    number: int
    run_dir: str
    lease: Lease
    ledger: LedgerRecord

    @property
    def step(self) -> str:
        """Dagster's step."""
        return self.lease.note.step

    @property
    def handle(self) -> JobHandle | None:
        """Its job, if there is one."""
        return self.ledger.handle(self.run_dir)


def parse_attempt(files: AttemptFiles) -> Attempt:
    """Read what a host says of an attempt."""
    number = int(files.run_dir.rpartition("/")[2])
    ledger = parse_ledger(files.ledger.encode("utf-8", "surrogateescape"))
    return Attempt(number, files.run_dir, parse_lease(files.lease), ledger)


@dataclass(frozen=True)
class LeaseStore:
    """The leases below a working folder, for who knows their epoch. Each call may raise what ``Host.call`` raises."""

    satellite: Satellite
    workdir: str

    def attempts(self, folder: str) -> list[Attempt]:
        """Return the attempts at a call, in order."""
        return [parse_attempt(files) for files in self.satellite.attempts(folder)]

    def open(self) -> tuple[list[Attempt], float]:
        """Return the attempts on which somebody may still have to act, and the host's clock: one call."""
        attempts, now = self.satellite.open_leases(self.workdir)
        return [parse_attempt(files) for files in attempts], now

    def take(
        self, attempt: Attempt, owner: Owner, *, state: str | None = None, outcome: str | None = None
    ) -> Lease | None:
        """Take a job over: its epoch grows, and who followed it is refused from now on.

        With a ``state`` it goes to that in the same moment, and has ended where an ``outcome`` is given. Returns the
        lease, or nothing where somebody else has changed it since the attempt was read.
        """
        ended = {} if outcome is None else {"outcome": outcome, "finished": time.time()}
        return self._change(attempt.run_dir, attempt.lease.epoch, state=state, owner=asdict(owner), **ended)

    def change(
        self,
        run_dir: str,
        epoch: int,
        state: str,
        *,
        outcome: str | None = None,
        shown: OutputPosition | None = None,
    ) -> Lease | None:
        """Go to another state; return the lease, or nothing where the epoch is another's by now."""
        written = None if shown is None else asdict(shown)
        finished = None if outcome is None else time.time()
        return self._change(run_dir, epoch, state=state, outcome=outcome, finished=finished, shown=written)

    def _change(self, run_dir: str, epoch: int, **changes: Any) -> Lease | None:
        changed, raw = self.satellite.change_lease(run_dir, self.workdir, epoch, **changes)
        return parse_lease(raw) if changed else None


@dataclass(frozen=True)
class Fresh:
    """Nothing stands in the way of a new attempt."""

    number: int


@dataclass(frozen=True)
class Adopt:
    """This attempt's job is the one that is wanted: it lives, or did its work and nobody collected that."""

    attempt: Attempt


@dataclass(frozen=True)
class EndFirst:
    """This attempt's job has to be over before anything else is submitted."""

    attempt: Attempt
    why: str


Decision = Fresh | Adopt | EndFirst


class HeldError(DagsterSlurmError):
    """Somebody else follows the job, or a newer release wrote its lease."""


def decide(
    attempts: Sequence[Attempt], *, unwanted: Callable[[Lease], str | None], released: Callable[[Owner], bool]
) -> Decision:
    """Return what somebody who wants to run a call does next.

    At most one attempt at a call is open at any time: two jobs of one call never run side by side.

    Args:
        attempts: The attempts so far, in order.
        unwanted: Why an attempt is not what is to be run now (other content, older inputs); nothing where it is.
        released: Whether an owner has no say any more; nobody is asked about a job that was left.

    Raises:
        HeldError: The job is another's.
    """
    for attempt in attempts:
        lease = attempt.lease
        if lease.newer:
            raise HeldError(
                f"the lease in {attempt.run_dir} was written by a newer release of this package",
                hint="Run this step with that release, or remove the run directory.",
            )
        if not lease.open:
            continue
        if lease.state != LEFT and lease.owner is not None and not released(lease.owner):
            raise HeldError(
                f"run {lease.owner.run_id} follows the job in {attempt.run_dir} already; two runs would report its "
                "results twice",
                hint="If nothing of that run lives any more, terminate it in Dagster and run this one again.",
            )
        if lease.state == CANCEL_WANTED:
            return EndFirst(attempt, "it was to be cancelled")
        why = unwanted(lease)
        return Adopt(attempt) if why is None else EndFirst(attempt, why)
    return Fresh(attempts[-1].number + 1 if attempts else 0)
