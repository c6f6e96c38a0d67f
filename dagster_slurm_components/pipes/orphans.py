"""Jobs that no living run follows: found by proof, not by silence.

What there is to act on stands in the leases on the hosts; whose it is, in Dagster's runs. ``judge`` decides, without
any I/O; the rest reads and acts.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum

import dagster as dg

from dagster_slurm_components.errors import HostRefusedError, SatelliteError
from dagster_slurm_components.jobs.ending import cancel
from dagster_slurm_components.jobs.lease import CANCEL_WANTED, CANCELLED, COLLECTED, ENDED, Attempt
from dagster_slurm_components.jobs.look import JobInfo, look_at
from dagster_slurm_components.jobs.model import slug
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.pipes.runs import MOST_RUNS, UNDER_WAY, Finding, will_be_retried
from dagster_slurm_components.pipes.step import executed

_NOT_OVER = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    *UNDER_WAY,
]
_SILENCE = 180.0
"""Seconds without a sign of life after which whoever followed the job of a finished run is taken to be gone: a process
notices within 30 s that its run is over, and needs a while to cancel."""
_DAEMON = 60.0
"""Seconds within which Dagster's daemon, which looks each five seconds, retries a failed run."""
_PROMISE = 900.0
"""Seconds after which a retry that was promised is not waited for any more."""
_TRACE = 900.0
"""Seconds for which a job may live of which Slurm shows no trace; see ``jobs.reconcile.Patience.trace``."""

Records = Mapping[str, dg.RunRecord]


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
    """Looks after the open leases of one profile."""

    instance: dg.DagsterInstance
    place: Target
    profile: str

    def look_after(
        self, attempts: Sequence[Attempt], now: float, reported: frozenset[str]
    ) -> Iterator[Finding]:
        """Act on what needs it of the open leases, and tell of it but not again. Asks no host where all is well.

        Args:
            attempts: Those with an open lease; jobs that their steps left are not among them.
            now: The host's clock.
            reported: The keys of what was told before.

        Raises:
            HostError: The host gives no answer.
        """
        records = self._records(attempts)
        again = self._run_again(attempts, records)
        acts: dict[Act, list[Attempt]] = {act: [] for act in Act}
        for attempt in attempts:
            owner, record = attempt.lease.owner, records.get(_run_of(attempt))
            gone = owner is not None and (owner.known_dead() or _is_ours(attempt, owner))
            run = record.dagster_run if record else None
            acts[judge(attempt, run, owner_gone=gone, again=attempt.run_dir in again, now=now)].append(
                attempt
            )
        for attempt in acts[Act.NEWER]:
            text = f"The lease in {attempt.run_dir} is damaged, or of a newer release; its job is left alone."
            if (key := f"newer {attempt.run_dir}") not in reported:
                yield Finding(key, "", text)
        yield from self._cancel(acts[Act.CANCEL], now)
        for attempt in acts[Act.COLLECTED]:
            self.place.leases.change(attempt.run_dir, attempt.lease.epoch, COLLECTED)
        yield from self._tell([each for each in acts[Act.TELL] if _key(each) not in reported], records, now)

    def _records(self, attempts: Sequence[Attempt]) -> Records:
        """Return the runs of the owners: one query."""
        ids = {attempt.lease.owner.run_id for attempt in attempts if attempt.lease.owner}
        records = self.instance.get_run_records(dg.RunsFilter(run_ids=sorted(ids))) if ids else []
        return {record.dagster_run.run_id: record for record in records}

    def _run_again(self, attempts: Sequence[Attempt], records: Records) -> frozenset[str]:
        """Return the run directories of runs that are over whose step another run of the family, under way, executes.

        It may not have claimed the job yet: it waits in Dagster's queue, or has just begun.
        """
        over = []
        steps: dict[str, frozenset[str]] = {}
        for attempt in attempts:
            record = records.get(_run_of(attempt))
            if record is not None and record.dagster_run.is_finished:
                root = _root(record.dagster_run)
                over.append((attempt, root))
                steps[root] = steps.get(root, frozenset()) | {attempt.step}
        # By their fields: the tag of the first run is not set by `dg.execute_job` (dagster 1.13, D3).
        wanted = dg.RunsFilter(statuses=_NOT_OVER)
        under_way = self.instance.get_runs(wanted, limit=MOST_RUNS) if over else []
        # Each run is asked once for all steps of its family: where it runs all, Dagster reads its whole plan for that.
        again = {
            (root, step)
            for run in under_way
            if (root := _root(run)) in steps
            for step in executed(self.instance, run, steps[root])
        }
        return frozenset(attempt.run_dir for attempt, root in over if (root, attempt.step) in again)

    def _cancel(self, attempts: Sequence[Attempt], now: float) -> Iterator[Finding]:
        """Cancel jobs that nobody follows; each lease says so before, and its end is confirmed, now or next time."""
        marked = [attempt for each in attempts if (attempt := self._marked(each)) is not None]
        for attempt, seen in self._seen(marked):
            job, run_id = seen.handle.job_id if seen else "", _run_of(attempt)
            what = f"the job {job} on {self.place.satellite.host.name}, which no run follows"
            look = self._look(attempt.run_dir, job)
            try:
                if self._cancel_one(attempt, seen, now):
                    yield Finding(f"cancel {attempt.run_dir}", run_id, f"Cancelled {what}. {look}")
            except (HostRefusedError, SatelliteError) as error:
                # A process of another machine, say: it keeps no other job alive.
                text = f"Could not cancel {what}: {error}\n{look}"
                yield Finding(f"alive {attempt.run_dir}", run_id, text)

    def _cancel_one(self, attempt: Attempt, seen: JobInfo | None, now: float) -> bool:
        """Cancel a job, or close its lease where it is over; return whether it was cancelled."""
        epoch = attempt.lease.epoch
        if seen is None:
            if self._made_no_job(attempt):
                self.place.leases.change(attempt.run_dir, epoch, CANCELLED)
        elif seen.observation.terminal and not self._may_show_yet(seen, attempt, now):
            self.place.leases.change(attempt.run_dir, epoch, CANCELLED, outcome=seen.observation.state)
        else:
            cancel(self.place, seen.handle, patience=0.0)
            return True
        return False

    def _marked(self, attempt: Attempt) -> Attempt | None:
        """Take a job over and mark it as one to be cancelled: whoever still follows it is refused from now on."""
        if attempt.lease.state == CANCEL_WANTED:
            return attempt
        try:
            lease = self.place.leases.take(
                attempt, Owner.of(_run_of(attempt), os.getpid()), state=CANCEL_WANTED
            )
        except SatelliteError:
            return attempt  # a full disk, which what fills it must not outlive: nobody follows the job in any case
        return None if lease is None else replace(attempt, lease=lease)

    def _made_no_job(self, attempt: Attempt) -> bool:
        """Whether a submission whose end is unknown surely made no job; one that may show later is looked for again."""
        place, token = self.place, attempt.ledger.token
        name = f"{slug(attempt.step)}-{token}"
        asked = place.scheduler.settlement(attempt.run_dir, place.workdir, token, name)
        return place.satellite.submit(asked, b"").outcome == "none"

    def _may_show_yet(self, seen: JobInfo, attempt: Attempt, now: float) -> bool:
        """Whether a job without a trace may live all the same: Slurm's answers are late, a process's are not."""
        return seen.lost and self.place.scheduler.has_accounting and now - attempt.lease.renewed < _TRACE

    def _tell(self, attempts: Sequence[Attempt], records: Records, now: float) -> Iterator[Finding]:
        """Tell, here and in the run's own log, of jobs that failed runs left behind.

        Whether their work is still wanted is for a person to say, so nothing is done to them.
        """
        failed = {_run_of(attempt) for attempt in attempts}
        left = {run_id for run_id in failed if not self._may_be_retried(records[run_id])}
        for attempt, seen in self._seen([each for each in attempts if _run_of(each) in left]):
            if seen is None or self._may_show_yet(seen, attempt, now):
                continue
            if seen.ended_badly or seen.lost:
                outcome = seen.observation.state
                self.place.leases.change(attempt.run_dir, attempt.lease.epoch, ENDED, outcome=outcome)
                continue
            run = records[_run_of(attempt)].dagster_run
            text = self._left(seen, run)
            self.instance.report_engine_event(text, run, step_key=attempt.step or None)
            yield Finding(_key(attempt), run.run_id, text)

    def _may_be_retried(self, record: dg.RunRecord) -> bool:
        """Whether Dagster is about to retry a failed run, or had no time yet to begin with that."""
        changed = record.update_timestamp
        if changed.tzinfo is None:  # Dagster's storages keep UTC
            changed = changed.replace(tzinfo=timezone.utc)
        age = (datetime.now(timezone.utc) - changed).total_seconds()
        return age <= _DAEMON or (age < _PROMISE and will_be_retried(self.instance, record.dagster_run))

    def _seen(self, attempts: Sequence[Attempt]) -> list[tuple[Attempt, JobInfo | None]]:
        seen = look_at(self.place, attempts)
        return list(zip(attempts, seen, strict=True))

    def _left(self, seen: JobInfo, run: dg.DagsterRun) -> str:
        job, where = seen.handle.job_id, f"on {self.place.satellite.host.name} (profile {self.profile})"
        # Dagster re-executes no run that was made in a terminal (1.13).
        other = (
            "a retry of this run in Dagster" if run.remote_job_origin else "the next `dg launch` of the same"
        )
        collect = f"`dg-slurm attach {run.run_id}`, or {other},"
        look = self._look(seen.handle.run_dir, job)
        if seen.alive:
            end = f"`dg-slurm jobs cancel {job} --profile {self.profile}` ends it"
            return f"Job {job} {where} goes on, and no run follows it: {collect} takes it up; {end}. {look}"
        return f"Job {job} {where} has ended, and no run collected its results: {collect} does. {look}"

    def _look(self, run_dir: str, job: str) -> str:
        return f"Run directory: {run_dir}; to see more: dg-slurm jobs show {job} --profile {self.profile}"


def _is_ours(attempt: Attempt, owner: Owner) -> bool:
    """Whether an earlier pass in this process marked a job as one to be cancelled: its end is still to be confirmed."""
    return attempt.lease.state == CANCEL_WANTED and owner == Owner.of(owner.run_id, os.getpid())


def _run_of(attempt: Attempt) -> str:
    return attempt.lease.owner.run_id if attempt.lease.owner else ""


def _root(run: dg.DagsterRun) -> str:
    return run.root_run_id or run.run_id


def _key(attempt: Attempt) -> str:
    return f"left {attempt.run_dir} {attempt.lease.epoch}"
