"""One look at jobs from outside: who each is by its ledger, and what all sources say at this moment.

Whoever looks may get a HostError: the host gives no answer.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.events import STDERR, TAIL
from dagster_slurm_components.jobs.lease import Attempt
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.reconcile import (
    LOST,
    Evidence,
    Observation,
    Patience,
    QueueAnswer,
    reconcile,
)
from dagster_slurm_components.jobs.schedulers import QueueRows
from dagster_slurm_components.jobs.status import StatusRecord, read_statuses
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.slurm.accounting import MAX_IDS, AccountingRow
from dagster_slurm_components.slurm.outcome import last_words

_NO_PATIENCE = Patience(settle=0.0, explanation=0.0, absence=0.0, trace=0.0)


@dataclass(frozen=True)
class JobInfo:
    """What one look at a job showed: what is known of it, and what all sources said."""

    handle: JobHandle
    observation: Observation
    evidence: Evidence

    @property
    def alive(self) -> bool:
        """Whether it waits or runs, or may do so for all that is known."""
        return not self.observation.terminal

    @property
    def lost(self) -> bool:
        """Whether there is no trace of it."""
        return self.observation.state == LOST

    @property
    def ended_badly(self) -> bool:
        """Whether it has surely ended, and not with success; a job without any trace may be anything."""
        return not self.alive and not self.lost and self.observation.state != "COMPLETED"


def look_at(
    place: Target,
    attempts: Sequence[Attempt],
    before: Mapping[str, Observation] | None = None,
) -> list[JobInfo | None]:
    """Return what is known of the jobs of attempts, each nothing where it has none: one call for all their files.

    Who looks again and again says what was known ``before``, by run directory: then silences are waited out, as by
    whoever follows a job.
    """
    handles = [handle for attempt in attempts if (handle := attempt.handle) is not None]
    if not handles:
        return [None] * len(attempts)
    statuses = read_statuses(place.satellite, handles)
    infos = observe(place, list(zip(handles, statuses, strict=True)), before)
    return [infos.get(attempt.run_dir) for attempt in attempts]


def with_accounts(place: Target, infos: Sequence[JobInfo | None]) -> list[JobInfo | None]:
    """Return the same, with what the accounting says of the newest that ended: one query, if the budget has it."""
    ended = [info.handle for info in infos if info and not info.alive and info.evidence.accounting is None]
    known = _accounts(place, ended[-MAX_IDS:])
    return [
        replace(info, evidence=replace(info.evidence, accounting=known[info.handle]))
        if info and info.handle in known
        else info
        for info in infos
    ]


def _accounts(place: Target, handles: Sequence[JobHandle]) -> dict[JobHandle, AccountingRow | None]:
    """Return what the accounting says of jobs, at most ``MAX_IDS``; nothing where it gives no answer to that."""
    scheduler = place.scheduler
    if not (handles and scheduler.has_accounting):
        return {}
    try:
        wanted = {handle.job_id: scheduler.first_query for handle in handles}
        rows = scheduler.accounting(place.satellite, wanted).rows
    except SatelliteError:  # the budget is used up, or slurmdbd gives no answer
        return {}
    return {handle: rows[handle.job_id][1] for handle in handles if handle.job_id in rows}


def observe(
    place: Target,
    jobs: Sequence[tuple[JobHandle, StatusRecord | None]],
    before: Mapping[str, Observation] | None = None,
    max_age: float | None = None,
) -> dict[str, JobInfo]:
    """Return by run directory what is known of jobs at this moment, from status files, queue and accounting.

    ``before`` is as of ``look_at``; an answer of the queue that is ``max_age`` seconds old will do.
    """
    patience = _NO_PATIENCE if before is None else place.scheduler.patience

    def judged(handle: JobHandle, known: Evidence) -> JobInfo:
        observation = (before or {}).get(handle.run_dir, Observation())
        return JobInfo(handle, reconcile(observation, known, time.monotonic(), patience), known)

    alone = [judged(handle, Evidence(status=status)) for handle, status in jobs]
    undecided = [each.handle for each in alone if each.alive or not _decides(each.evidence.status)]
    evidence = _ask(place, undecided, patient=before is not None, max_age=max_age)
    return {
        each.handle.run_dir: judged(each.handle, replace(evidence[each.handle], status=each.evidence.status))
        if each.handle in evidence
        else each
        for each in alone
    }


def _ask(
    place: Target, handles: Sequence[JobHandle], *, patient: bool, max_age: float | None
) -> dict[JobHandle, Evidence]:
    """Ask the queue once, and the accounting for the jobs that it lacks.

    A job of which one gave no answer has no evidence: then its own file alone speaks. The accounting's silence counts
    for who is ``patient``, and waits it out, and where no accounts are kept. The queue's answer may be somebody else's,
    or an old one, where the budget of queries is used up: of a job that is younger it says nothing.
    """
    now, scheduler = time.monotonic(), place.scheduler
    try:
        age = scheduler.first_query if max_age is None else max_age
        queue = scheduler.queue(place.satellite, handles, age) if handles else QueueRows(None)
    except SatelliteError:  # the budget that all processes share is used up, or somebody else's query hangs
        return {}
    if queue.rows is None:
        return {}
    taken = now - queue.age
    evidence, gone = {}, []
    for handle in handles:
        if handle.job_id in queue.rows:
            evidence[handle] = Evidence(queue=QueueAnswer(queue.rows[handle.job_id], taken))
        elif queue.is_after(handle.submitted):
            gone.append(handle)
    absent = QueueAnswer(None, taken)
    rows: dict[JobHandle, AccountingRow | None] = {}
    for begin in range(0, len(gone), MAX_IDS):
        rows |= _accounts(place, gone[begin : begin + MAX_IDS])
    if patient or not scheduler.has_accounting:
        rows = dict.fromkeys(gone) | rows
    silent = [handle for handle, row in rows.items() if row is None]
    # What Slurm's daemons wrote of the ends of jobs, of which no accounts tell.
    words = dict(zip(silent, map(last_words, ends_of_stderr(place, silent)), strict=True))
    return evidence | {
        handle: Evidence(queue=absent, accounting=row, words=words.get(handle))
        for handle, row in rows.items()
    }


def ends_of_stderr(place: Target, handles: Sequence[JobHandle]) -> list[str]:
    """Return the last kilobytes that jobs wrote to stderr: two calls for all of them."""
    if not handles:
        return []
    read, logs = place.satellite.read, [handle.file(STDERR) for handle in handles]
    sizes = [file.size for file in read([FileRead(log, 0, 0) for log in logs])]
    tails = [FileRead(log, max(0, size - TAIL), TAIL) for log, size in zip(logs, sizes, strict=True)]
    return [file.data.decode("utf-8", "replace") for file in read(tails)]


def _decides(status: StatusRecord | None) -> bool:
    """Whether the status file alone can decide: after a signal Slurm may have meant more than the job knows."""
    return status is not None and status.exit_code is not None and not status.signals
