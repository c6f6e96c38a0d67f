"""One look at a job from outside: who it is by its ledger, and what all sources say at this moment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.calls import FileRead
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.events import STATUS
from dagster_slurm_components.jobs.lease import Attempt
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.reconcile import LOST, Answer, Evidence, Observation, Patience, reconcile
from dagster_slurm_components.jobs.schedulers import Scheduler
from dagster_slurm_components.jobs.status import StatusRecord, parse_status
from dagster_slurm_components.slurm.accounting import MAX_IDS, AccountingRow
from dagster_slurm_components.slurm.queue import QueueRow

_MOST = 1024 * 1024
_NO_PATIENCE = Patience(settle=0.0, explanation=0.0, absence=0.0, trace=0.0)


@dataclass(frozen=True)
class Seen:
    """What one look showed.

    Attributes:
        handle: The job.
        observation: What is known of it.
        status: The newest block of its status file.
        evidence: What all sources said.
    """

    handle: JobHandle
    observation: Observation
    status: StatusRecord | None
    evidence: Evidence

    @property
    def ended_badly(self) -> bool:
        """Whether it has surely ended, and not with success; a job without any trace may be anything."""
        seen = self.observation
        return seen.terminal and seen.state not in ("COMPLETED", LOST)

    @property
    def lost(self) -> bool:
        """Whether there is no trace of it: the queue's shared answer may be older than the job."""
        return self.observation.state == LOST

    @property
    def alive(self) -> bool:
        """Whether it waits or runs, or may do so for all that is known."""
        return not self.observation.terminal


def look(satellite: Satellite, scheduler: Scheduler, attempt: Attempt) -> Seen | None:
    """Return what is known of an attempt's job, or nothing when it has none.

    Raises:
        HostError: The host gives no answer.
    """
    return look_at(satellite, scheduler, [attempt])[0]


def look_at(satellite: Satellite, scheduler: Scheduler, attempts: Sequence[Attempt]) -> list[Seen | None]:
    """Return what is known of the jobs of attempts, each nothing where it has none: one call for all their files.

    Raises:
        HostError: The host gives no answer.
    """
    submitted = [attempt for attempt in attempts if attempt.ledger.job_id is not None]
    if not submitted:
        return [None] * len(attempts)
    files = satellite.read([FileRead(f"{attempt.run_dir}/{STATUS}", 0, _MOST) for attempt in submitted])
    jobs = []
    for attempt, file in zip(submitted, files, strict=True):
        ledger = attempt.ledger
        handle = JobHandle(ledger.job_id or "", attempt.run_dir, ledger.token, "known", ledger.submitted)
        jobs.append((handle, parse_status(file.data)))
    seen = {each.handle.run_dir: each for each in observe(satellite, scheduler, jobs)}
    return [seen.get(attempt.run_dir) for attempt in attempts]


def observe(
    satellite: Satellite, scheduler: Scheduler, jobs: Sequence[tuple[JobHandle, StatusRecord | None]]
) -> list[Seen]:
    """Return what is known of jobs at this moment. Asks the queue once, and the accounting for those it lacks.

    A question that the host could not ask (the budget of queries that all processes share is used up, somebody
    else's hangs) is no observation: the jobs' own files alone speak then.

    Raises:
        HostError: The host gives no answer.
    """
    open_jobs = [handle for handle, status in jobs if not _told_its_end(status)]
    rows = _queue(satellite, scheduler, open_jobs)
    gone = [handle for handle in open_jobs if rows is not None and handle.job_id not in rows]
    books: dict[str, AccountingRow] = {}
    unheard = set(open_jobs) if rows is None else set()
    for begin in range(0, len(gone), MAX_IDS):
        some = gone[begin : begin + MAX_IDS]
        answer = _accounting(satellite, scheduler, some)
        if answer is None:
            unheard.update(some)
        books.update(answer or {})
    now = time.monotonic()
    found = []
    for handle, status in jobs:
        evidence = Evidence(status=status)
        if rows is not None and handle in open_jobs and handle not in unheard:
            book = books.get(handle.job_id)
            evidence = Evidence(
                status, Answer(rows.get(handle.job_id), now), Answer(book, now) if book else None
            )
        observation = reconcile(Observation(), evidence, now, _NO_PATIENCE)
        found.append(Seen(handle, observation, status, evidence))
    return found


def _queue(
    satellite: Satellite, scheduler: Scheduler, handles: Sequence[JobHandle]
) -> Mapping[str, QueueRow] | None:
    try:
        return scheduler.queue(satellite, handles) if handles else {}
    except SatelliteError:
        return None


def _accounting(
    satellite: Satellite, scheduler: Scheduler, handles: Sequence[JobHandle]
) -> Mapping[str, AccountingRow] | None:
    """Return the accounting's rows, none where nobody keeps books, or nothing when it gave no answer."""
    try:
        return scheduler.accounting(satellite, handles) if scheduler.has_accounting else {}
    except SatelliteError:
        return None


def _told_its_end(status: StatusRecord | None) -> bool:
    """Whether the status file alone decides: after a signal Slurm may have meant more than the job knows."""
    return status is not None and status.exit_code is not None and not status.signals
