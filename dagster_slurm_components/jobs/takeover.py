"""Which attempt at a call is made: a new one, or the one that an earlier process left behind; see ``lease.decide``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from dagster_slurm_components.hosts.satellite.calls import LeaseRequest
from dagster_slurm_components.jobs.ending import end_attempt
from dagster_slurm_components.jobs.lease import (
    COLLECTED,
    ENDED,
    LEFT,
    REPORTING,
    Adopt,
    Attempt,
    EndFirst,
    Fresh,
    Lease,
    decide,
)
from dagster_slurm_components.jobs.look import look_at
from dagster_slurm_components.jobs.model import JobIdentity, slug
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.jobs.target import Target


@dataclass(frozen=True)
class Claim:
    """An attempt that is this process's.

    Attributes:
        identity: Which job.
        owner: This process, as the one whose end is the end of its run.
        lease: Its lease, as this process has taken it over or is about to make it.
        adopted: Whether its job may exist already.
        attempts: What there was when it was claimed; of a claim to a job that was taken over the last one is that.
    """

    identity: JobIdentity
    owner: Owner
    lease: Lease
    adopted: bool = False
    attempts: tuple[Attempt, ...] = ()

    def request(self, digest: str, content: str) -> LeaseRequest:
        """Return what the host is told of who submits, and what."""
        epoch = self.lease.epoch if self.adopted else None
        return LeaseRequest(digest, content, asdict(self.owner), asdict(self.lease.note), epoch)

    def next(self, kind: str, changed: Mapping[str, str]) -> Claim:
        """Return the claim to the attempt that a retry policy answers an end with."""
        note = self.lease.note
        retries = {**note.retries, kind: note.retries.get(kind, 0) + 1}
        note = replace(note, retries=retries, changed={**note.changed, **changed})
        return Claim(self.identity.next(), self.owner, Lease(1, note=note))


class Asker(Protocol):
    """Who asks for a job, and knows of earlier attempts what stands on no host."""

    def unwanted(self, lease: Lease) -> str | None:
        """Return why a job is not the one that is to be run now; nothing where it is."""

    def released(self, owner: Owner) -> bool:
        """Whether an owner has no say any more."""

    def stored(self, lease: Lease) -> bool:
        """Whether the results of a job that has ended were stored."""


def take_over(
    place: Target, first: Claim, asker: Asker, *, tell: Callable[[str], None], sleep: Callable[[float], None]
) -> Claim:
    """Return the claim to the attempt at a call that is to be made, after the host was asked for those before it.

    ``first`` is the claim as if there were none; ``tell`` receives a sentence about each that is not taken up. What
    ``sleep`` raises ends the waiting.

    Raises:
        HeldError: Another run follows the job.
        NotEndedError: A job that has to end first does not.
        HostError: The host refuses.
    """
    identity, owner = first.identity, first.owner
    while True:
        attempts = place.leases.attempts(f"{place.workdir}/{identity.call_folder}")
        match decide(attempts, unwanted=asker.unwanted, released=asker.released):
            case Fresh(number=number):
                return replace(first, identity=replace(identity, attempt=number), attempts=tuple(attempts))
            case EndFirst(attempt=attempt, why=why):
                tell(
                    f"The attempt in {attempt.run_dir} is not taken up: {why}. What is left of it ends first."
                )
                name = f"{slug(identity.step)}-{attempt.ledger.token}"
                end_attempt(place, attempt, owner, name, tell=tell, sleep=sleep)
            case Adopt(attempt=attempt):
                if (lease := _adopt(place, attempt, owner, asker, tell)) is not None:
                    known = tuple(each for each in attempts if each.number <= attempt.number)
                    return Claim(replace(identity, attempt=attempt.number), owner, lease, True, known)


def _adopt(
    place: Target, attempt: Attempt, owner: Owner, asker: Asker, tell: Callable[[str], None]
) -> Lease | None:
    """Take a job over; return nothing where its work is over: then the next look decides anew."""
    lease, run_dir = attempt.lease, attempt.run_dir
    if lease.state == ENDED and asker.stored(lease):
        place.leases.change(run_dir, lease.epoch, COLLECTED)
        return None
    taken = place.leases.take(attempt, owner)
    if taken is None or taken.state == ENDED or taken.note.elements:
        return taken  # of an array that has ended badly most elements may have done their work
    (seen,) = look_at(place, [attempt])
    if seen is None or not seen.ended_badly:
        return taken
    word = seen.observation.state  # nobody followed it, and it has ended meanwhile
    tell(f"Job {seen.handle.job_id} of an earlier try ended meanwhile: {word}. Its output is in {run_dir}.")
    # Of a job that was left the sensor has yet to report this.
    place.leases.change(run_dir, taken.epoch, REPORTING if taken.state == LEFT else ENDED, outcome=word)
    return None
