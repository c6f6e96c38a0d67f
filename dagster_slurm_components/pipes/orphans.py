"""Runs whose process died, and jobs that no living run follows: found by proof, not by silence.

What there is to act on stands in the leases on the hosts; whose it is, in Dagster's runs. ``judge`` decides, without
any I/O; the rest reads and acts. A run is given up only if its worker ran on this machine, in this PID namespace, and
is gone, and the run is still not finished when it is read again after that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum

import dagster as dg

from dagster_slurm_components.errors import HostRefusedError, SatelliteError
from dagster_slurm_components.jobs.ending import cancel
from dagster_slurm_components.jobs.lease import CANCEL_WANTED, CANCELLED, COLLECTED, ENDED, Attempt, Owner
from dagster_slurm_components.jobs.lease_store import LeaseStore
from dagster_slurm_components.jobs.look import JobInfo, look_at
from dagster_slurm_components.jobs.model import slug
from dagster_slurm_components.pipes.records import PROFILE, report, worker
from dagster_slurm_components.pipes.retries import will_be_retried
from dagster_slurm_components.pipes.step import executed
from dagster_slurm_components.pipes.target import Target

_UNDER_WAY = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_NOT_OVER = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    *_UNDER_WAY,
]
_MOST_RUNS = 500
_SILENCE = 180.0
"""Seconds without a sign of life after which whoever followed the job of a finished run is taken to be gone: a process
notices within 30 s that its run is over, and needs a while to cancel."""
_DAEMON = 60.0
"""Seconds within which Dagster's daemon, which looks each five seconds, retries a failed run."""
_PROMISE = 900.0
"""Seconds after which a retry that was promised is not waited for any more."""
_TRACE = 900.0
"""Seconds for which a job may live of which Slurm shows no trace; see ``jobs.reconcile.Patience.trace``."""


@dataclass(frozen=True)
class Finding:
    """Something that a person should know.

    Attributes:
        key: Tells it from other findings; what was told once is not told again.
        run_id: The run.
        text: What was found and done.
    """

    key: str
    run_id: str
    text: str


def end_dead_runs(instance: dg.DagsterInstance) -> Iterator[Finding]:
    """Fail (or finish cancelling) the runs whose worker died, so that a retry can take up their jobs.

    Costs one query of Dagster's runs, and asks no host.
    """
    wanted = dg.RunsFilter(statuses=_UNDER_WAY)
    for run in instance.get_runs(wanted, limit=_MOST_RUNS):
        found = end_if_dead(instance, run)
        if found is not None:
            yield found


def end_if_dead(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Finding | None:
    """End a run whose worker is proven dead; one of which that is not known is left alone."""
    owner = worker(run)
    if owner is None or not owner.known_dead():
        return None
    now = instance.get_run_by_id(run.run_id)  # read after the look at the process
    if now is None or now.status not in _UNDER_WAY or worker(now) != owner:
        return None
    text = f"The run worker (process {owner.pid} on {owner.node}) is gone."
    if now.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(now, f"{text} The run was being cancelled.")
        return Finding(f"dead {run.run_id}", run.run_id, f"{text} The run is marked as cancelled.")
    instance.report_run_failed(now, f"{text} Its jobs live on: a retry takes them up.")
    said = f"{text} The run is marked as failed, so that a retry takes up its jobs."
    return Finding(f"dead {run.run_id}", run.run_id, said)


def remind_of_retries(
    instance: dg.DagsterInstance,
    *,
    updated_after: datetime,
    updated_before: datetime,
    reminded: frozenset[str],
) -> Iterator[Finding]:
    """Tell Dagster's daemon once more of failed runs that it was to retry and did not.

    A run's failure is written to the event log first and to the run a moment later. A daemon that looks in between
    takes the run for one that still runs, and its cursor passes the event for ever (dagster 1.13.27). A second
    event of the same failure makes it look again. Each event is news for every sensor of failures, so it is made once,
    and only where Dagster can retry at all.

    Args:
        instance: Dagster's instance.
        updated_after: Runs that changed last before this moment are not looked at.
        updated_before: Nor are runs that changed after it: the daemon needs its time.
        reminded: Keys of what was told before.
    """
    wanted = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE],
        tags={"dagster/will_retry": "true"},
        updated_after=updated_after,
        updated_before=updated_before,
    )
    for run in instance.get_runs(wanted, limit=_MOST_RUNS):
        key = f"retry {run.run_id}"
        if key in reminded or PROFILE not in run.tags or not will_be_retried(instance, run):
            continue
        instance.report_run_failed(
            run, "Run retries were to retry this run, and have not. They are told again."
        )
        yield Finding(
            key, run.run_id, "Dagster's daemon missed this failure; it is told again to retry the run."
        )


class Act(Enum):
    """What is to be done about an open lease."""

    NOTHING = "nothing"
    CANCEL = "cancel"
    COLLECTED = "collected"
    TELL = "tell"
    NEWER = "newer"


def judge(attempt: Attempt, run: dg.DagsterRun | None, *, owner_gone: bool, again: bool, now: float) -> Act:
    """Return what is to be done about an open lease.

    ========================  ==========================================================
    the owner's run           its lease
    ========================  ==========================================================
    not in this Dagster       another Dagster's: nothing
    under way                 nothing: the run, or its retry, sees to it
    over, owner may live      nothing: its process is just ending the job
    over, step is run again   nothing, unless its cancellation was wanted
    canceled                  cancel; what had ended well is left to whoever re-executes
    succeeded                 cancel a job that was left; what had ended is collected
    failed                    cancel if that was wanted, else tell a person
    ========================  ==========================================================

    Args:
        attempt: The attempt.
        run: The run of its owner.
        owner_gone: Whether the owner is proven dead, or was an earlier pass of this very sensor.
        again: Whether a run under way re-executes its step: that takes up the job, or ends it.
        now: Seconds since the epoch, by the host's clock.
    """
    lease = attempt.lease
    if lease.newer:
        return Act.NEWER
    ended = lease.state == ENDED
    busy = not ended and not owner_gone and now - lease.renewed < _SILENCE
    if run is None or not run.is_finished or busy:
        return Act.NOTHING
    if lease.state == CANCEL_WANTED:
        return Act.CANCEL
    if ended and run.is_success:
        return Act.COLLECTED
    canceled = run.status is dg.DagsterRunStatus.CANCELED
    if again or (ended and canceled):
        return Act.NOTHING
    return Act.CANCEL if run.is_success or canceled else Act.TELL


@dataclass(frozen=True)
class Orphans:
    """Looks after the open leases of one profile.

    Attributes:
        instance: Dagster's instance.
        place: Where the profile's jobs run.
        profile: Its name.
    """

    instance: dg.DagsterInstance
    place: Target
    profile: str

    def look_after(self, told: frozenset[str]) -> Iterator[Finding]:
        """Act on what needs it, and tell of it. Costs one call to the host where all is well.

        Args:
            told: Keys of what was told before.

        Raises:
            HostError: The host gives no answer.
        """
        attempts, now = self._leases.open()
        records = self._records(attempts)
        runs = {run_id: record.dagster_run for run_id, record in records.items()}
        again = self._run_again(attempts, runs)
        acts: dict[Act, list[Attempt]] = {act: [] for act in Act}
        for attempt in attempts:
            owner = attempt.lease.owner
            run = runs.get(owner.run_id) if owner else None
            gone = owner is not None and (owner.known_dead() or _is_ours(attempt, owner))
            act = judge(attempt, run, owner_gone=gone, again=attempt.run_dir in again, now=now)
            acts[act].append(attempt)
        for attempt in acts[Act.NEWER]:
            text = f"The lease in {attempt.run_dir} is damaged, or of a newer release; its job is left alone."
            if (key := f"newer {attempt.run_dir}") not in told:
                yield Finding(key, "", text)
        yield from self._cancel(acts[Act.CANCEL], now)
        for attempt in acts[Act.COLLECTED]:
            self._leases.change(attempt.run_dir, attempt.lease.epoch, COLLECTED)
        left = [
            attempt
            for attempt in acts[Act.TELL]
            if _key(attempt) not in told and _age(records[_run_of(attempt)]) > _DAEMON
        ]
        yield from self._tell(left, records, now)

    @property
    def _leases(self) -> LeaseStore:
        return LeaseStore(self.place.direct, self.place.workdir)

    def _records(self, attempts: Sequence[Attempt]) -> Mapping[str, dg.RunRecord]:
        """Return the runs of the owners: one query."""
        ids = {attempt.lease.owner.run_id for attempt in attempts if attempt.lease.owner}
        found = self.instance.get_run_records(dg.RunsFilter(run_ids=sorted(ids))) if ids else []
        return {record.dagster_run.run_id: record for record in found}

    def _run_again(self, attempts: Sequence[Attempt], runs: Mapping[str, dg.DagsterRun]) -> frozenset[str]:
        """Return the run directories of runs that are over whose step another run of the family, under way, executes.

        It may not have claimed the job yet: it waits in Dagster's queue, or has just begun.
        """
        over = [attempt for attempt in attempts if (run := runs.get(_run_of(attempt))) and run.is_finished]
        if not over:
            return frozenset()
        # By their fields: the tag of the first run is not set by `dg.execute_job` (dagster 1.13, D3).
        under_way = self.instance.get_runs(dg.RunsFilter(statuses=_NOT_OVER), limit=_MOST_RUNS)
        families: dict[str, list[dg.DagsterRun]] = {}
        for run in under_way:
            families.setdefault(_root(run), []).append(run)

        def run_again(attempt: Attempt) -> bool:
            family, step = families.get(_root(runs[_run_of(attempt)]), []), frozenset({attempt.step})
            return any(executed(self.instance, run, step) for run in family)

        return frozenset(attempt.run_dir for attempt in over if run_again(attempt))

    def _cancel(self, attempts: Sequence[Attempt], now: float) -> Iterator[Finding]:
        """Cancel jobs that nobody follows; each lease says so before, and its end is confirmed, now or next time."""
        marked = [attempt for each in attempts if (attempt := self._marked(each)) is not None]
        for attempt, seen in self._seen(marked):
            job, run_id = seen.handle.job_id if seen else "", _run_of(attempt)
            what = f"the job {job} on {self.place.direct.host.name}, which no run follows"
            try:
                if self._cancel_one(attempt, seen, now):
                    yield Finding(f"cancel {attempt.run_dir}", run_id, f"Cancelled {what}.")
            except (HostRefusedError, SatelliteError) as error:
                # A process of another machine, say: it keeps no other job alive.
                text = f"Could not cancel {what}: {error}"
                yield Finding(f"alive {attempt.run_dir}", run_id, text)

    def _cancel_one(self, attempt: Attempt, seen: JobInfo | None, now: float) -> bool:
        """Cancel a job, or close its lease where it is over; return whether it was cancelled."""
        epoch = attempt.lease.epoch
        if seen is None:
            if self._made_no_job(attempt):
                self._leases.change(attempt.run_dir, epoch, CANCELLED)
        elif seen.observation.terminal and not self._may_show_yet(seen, attempt, now):
            self._leases.change(attempt.run_dir, epoch, CANCELLED, outcome=seen.observation.state)
        else:
            cancel(self.place.direct, self.place.scheduler, seen.handle, patience=0.0)
            return True
        return False

    def _marked(self, attempt: Attempt) -> Attempt | None:
        """Take a job over and mark it as one to be cancelled: whoever still follows it is refused from now on."""
        if attempt.lease.state == CANCEL_WANTED:
            return attempt
        owner = Owner.of(_run_of(attempt), os.getpid())
        try:
            lease = self._leases.take(attempt, owner, state=CANCEL_WANTED)
        except SatelliteError:
            return attempt  # a full disk, which what fills it must not outlive: nobody follows the job in any case
        return None if lease is None else replace(attempt, lease=lease)

    def _made_no_job(self, attempt: Attempt) -> bool:
        """Whether a submission whose end is unknown surely made no job; one that may show later is looked for again."""
        name = f"{slug(attempt.step)}-{attempt.ledger.token}"
        asked = self.place.scheduler.settlement(
            attempt.run_dir, self.place.workdir, attempt.ledger.token, name
        )
        return self.place.direct.submit(asked, b"").outcome == "none"

    def _may_show_yet(self, seen: JobInfo, attempt: Attempt, now: float) -> bool:
        """Whether a job without a trace may live all the same: Slurm's answers are late, a process's are not."""
        return seen.lost and self.place.scheduler.has_accounting and now - attempt.lease.renewed < _TRACE

    def _tell(
        self, attempts: Sequence[Attempt], records: Mapping[str, dg.RunRecord], now: float
    ) -> Iterator[Finding]:
        """Tell, here and in the run's own log, of jobs that failed runs left behind.

        Whether their work is still wanted is for a person to say, so nothing is done to them.
        """
        promised = self._promised({_run_of(attempt) for attempt in attempts}, records)
        for attempt, seen in self._seen([each for each in attempts if _run_of(each) not in promised]):
            if seen is None or self._may_show_yet(seen, attempt, now):
                continue
            if seen.ended_badly or seen.lost:
                outcome = seen.observation.state
                self._leases.change(attempt.run_dir, attempt.lease.epoch, ENDED, outcome=outcome)
                continue
            run = records[_run_of(attempt)].dagster_run
            text = self._left(seen, run.run_id)
            report(self.instance, run, attempt.step or None, text)
            yield Finding(_key(attempt), run.run_id, text)

    def _promised(self, failed: Set[str], records: Mapping[str, dg.RunRecord]) -> frozenset[str]:
        """Return the failed runs that Dagster is about to retry."""

        def promised(record: dg.RunRecord) -> bool:
            return _age(record) < _PROMISE and will_be_retried(self.instance, record.dagster_run)

        return frozenset(run_id for run_id in failed if promised(records[run_id]))

    def _seen(self, attempts: Sequence[Attempt]) -> list[tuple[Attempt, JobInfo | None]]:
        seen = look_at(self.place.direct, self.place.scheduler, attempts)
        return list(zip(attempts, seen, strict=True))

    def _left(self, seen: JobInfo, run_id: str) -> str:
        job, where = seen.handle.job_id, f"on {self.place.direct.host.name} (profile {self.profile})"
        collect = f"`dg-slurm attach {run_id}`, or a retry of this run in Dagster,"
        if seen.alive:
            end = f"`dg-slurm jobs cancel {job} --profile {self.profile}` ends it"
            return f"Job {job} {where} goes on, and no run follows it: {collect} takes it up; {end}."
        return f"Job {job} {where} has ended, and no run collected its results: {collect} does."


def _is_ours(attempt: Attempt, owner: Owner) -> bool:
    """Whether an earlier pass in this process marked a job as one to be cancelled: its end is still to be confirmed."""
    return attempt.lease.state == CANCEL_WANTED and owner == Owner.of(owner.run_id, os.getpid())


def _run_of(attempt: Attempt) -> str:
    return attempt.lease.owner.run_id if attempt.lease.owner else ""


def _age(record: dg.RunRecord) -> float:
    """Return the seconds since a run last changed."""
    changed = record.update_timestamp
    if changed.tzinfo is None:  # Dagster's storages keep UTC
        changed = changed.replace(tzinfo=timezone.utc)
    return (datetime.now(timezone.utc) - changed).total_seconds()


def _root(run: dg.DagsterRun) -> str:
    return run.root_run_id or run.run_id


def _key(attempt: Attempt) -> str:
    return f"left {attempt.run_dir} {attempt.lease.epoch}"
