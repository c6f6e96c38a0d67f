"""Which attempt at a call this process makes: a new one, or the one that an earlier process left behind.

The decision is ``jobs.lease.decide``; here its questions are answered from Dagster's runs and from the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

import dagster as dg

from dagster_slurm_components.hosts.calls import LeaseRequest
from dagster_slurm_components.jobs.ending import JobEnder
from dagster_slurm_components.jobs.lease import (
    COLLECTED,
    ENDED,
    Adopt,
    Attempt,
    EndFirst,
    Fresh,
    HeldError,
    Lease,
    Note,
    OutputPosition,
    Owner,
    decide,
)
from dagster_slurm_components.jobs.lease_store import LeaseStore
from dagster_slurm_components.jobs.look import look
from dagster_slurm_components.jobs.model import JobIdentity, slug
from dagster_slurm_components.pipes.step import Step, made_by, run_of
from dagster_slurm_components.pipes.target import Target

_STORED = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_OUTPUT,
}
_PAGE = 100
_SLACK = 1.0
"""Seconds by which the clocks of two of Dagster's machines may differ."""


@dataclass(frozen=True)
class Claim:
    """An attempt that is this process's.

    Attributes:
        identity: Which job.
        note: What is kept for whoever takes it over.
        epoch: The epoch of its lease.
        adopted: Whether its job may exist already.
        shown: What a person has seen of its output.
    """

    identity: JobIdentity
    note: Note
    epoch: int = 1
    adopted: bool = False
    shown: OutputPosition = field(default_factory=OutputPosition)

    def next(self, kind: str, changed: Mapping[str, str]) -> Claim:
        """Return the claim to the attempt that a retry policy answers an end with."""
        note = self.note
        retries = {**note.retries, kind: note.retries.get(kind, 0) + 1}
        note = replace(note, retries=retries, changed={**note.changed, **changed})
        return Claim(self.identity.next(), note)

    def request(self, digest: str, content: str, owner: Owner) -> LeaseRequest:
        """Return what the satellite is told of who submits, and what."""
        epoch = self.epoch if self.adopted else None
        return LeaseRequest(digest, content, asdict(owner), asdict(self.note), epoch)


@dataclass(frozen=True)
class Claims:
    """Claims attempts at one call.

    Attributes:
        step: The step.
        place: Where its jobs run.
        profile: The profile's name.
        identity: The first attempt at the call.
        digest: Hash of all that its job is made of.
        pause: Waits so many seconds; what it raises ends the waiting.
    """

    step: Step
    place: Target
    profile: str
    identity: JobIdentity
    digest: str
    pause: Callable[[float], None]

    def first(self) -> Claim:
        """Return the claim to the first attempt; the host says if it was made before."""
        return Claim(
            self.identity, Note(upstream=self.step.upstream, profile=self.profile, step=self.step.key)
        )

    def claim(self) -> Claim:
        """Return the attempt that is to be made, after the host was asked for those before it.

        Raises:
            Failure: Another run follows the job.
            NotEndedError: A job that has to end first does not.
            HostError: The host refuses.
        """
        leases = LeaseStore(self.place.satellite, self.place.workdir)
        folder = f"{self.place.workdir}/{self.identity.call_folder}"
        while True:
            attempts = leases.attempts(folder)
            try:
                decision = decide(attempts, unwanted=self._not_wanted, released=self._released)
            except HeldError as error:
                raise dg.Failure(str(error), allow_retries=False) from error
            match decision:
                case Fresh(number=number):
                    first = self.first()
                    return replace(first, identity=replace(self.identity, attempt=number))
                case EndFirst(attempt=attempt, why=why):
                    self._end(attempt, why)
                case Adopt(attempt=attempt):
                    claim = self._adopt(leases, attempt)
                    if claim is not None:
                        return claim

    def _not_wanted(self, lease: Lease) -> str | None:
        """Return why a job is not the one that is to be run now."""
        if lease.digest != self.digest:
            return "it has other content"
        upstream, run = lease.note.upstream, self.step.run
        if run is None:
            return None
        now = made_by(self.step.instance, run, frozenset(upstream))
        newer = [key for key, run_id in upstream.items() if now.get(key, run_id) != run_id]
        return f"{', '.join(newer)} was run anew since" if newer else None

    def _released(self, owner: Owner) -> bool:
        """Whether an owner has no say any more: of this run, of one that is over, or proven dead."""
        if owner.run_id == self.step.run_id:
            return True
        run = run_of(self.step.instance, owner.run_id)
        return run is None or run.is_finished or owner.known_dead()

    def _end(self, attempt: Attempt, why: str) -> None:
        log = self.step.context.log.warning
        log(f"The attempt in {attempt.run_dir} is not taken up: {why}. What is left of it ends first.")
        place = self.place
        ender = JobEnder(place.satellite, place.scheduler, place.watcher, place.workdir)
        name = f"{slug(self.step.key)}-{attempt.ledger.token}"
        ender.end_attempt(attempt, self.step.owner, name, tell=log, sleep=self.pause)

    def _adopt(self, leases: LeaseStore, attempt: Attempt) -> Claim | None:
        """Take a job over; return nothing where its work is over: then the next look decides anew."""
        lease, owner = attempt.lease, attempt.lease.owner
        if lease.state == ENDED and owner is not None and self._stored(owner.run_id, lease.finished):
            leases.change(attempt.run_dir, lease.epoch, COLLECTED)
            return None
        taken = leases.take(attempt, self.step.owner)
        if taken is None:
            return None
        if taken.state != ENDED and self._ended_badly(leases, attempt, taken.epoch):
            return None
        identity = replace(self.identity, attempt=attempt.number)
        return Claim(identity, taken.note, taken.epoch, True, taken.shown)

    def _stored(self, run_id: str, since: float | None) -> bool:
        return results_stored(self.step.instance, run_id, self.step.key, since or 0.0)

    def _ended_badly(self, leases: LeaseStore, attempt: Attempt, epoch: int) -> bool:
        """Whether a job that nobody followed has ended meanwhile, without success."""
        found = look(self.place.satellite, self.place.scheduler, attempt)
        if found is None or not found.ended_badly:
            return False
        word = found.observation.state
        self.step.context.log.warning(
            f"Job {found.handle.job_id} of an earlier try ended meanwhile: {word}. "
            f"Its output is in {attempt.run_dir}."
        )
        leases.change(attempt.run_dir, epoch, ENDED, outcome=word)
        return True


def results_stored(instance: dg.DagsterInstance, run_id: str, step: str, since: float) -> bool:
    """Return whether Dagster has stored results of a step since a moment.

    Args:
        instance: Dagster's instance.
        run_id: The run.
        step: The step's key.
        since: Seconds since the epoch.
    """
    # The newest first: mostly what is asked for was stored a moment ago, or is the last thing that its run did. Other
    # steps of a large run may have stored hundreds of events since.
    cursor = None
    while True:
        found = instance.get_records_for_run(
            run_id, of_type=_STORED, limit=_PAGE, ascending=False, cursor=cursor
        )
        for record in found.records:
            event = record.event_log_entry.dagster_event
            if record.timestamp < since - _SLACK:
                return False
            if event is not None and event.step_key == step:
                return True
        if not found.has_more:
            return False
        cursor = found.cursor
