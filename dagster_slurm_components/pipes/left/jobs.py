"""Follows all left jobs of a profile by one look, and reports what came of those that have ended.

A job is ``left`` until somebody sees that it has ended and takes its lease, as ``reporting``; then its results are
stored, and the lease is closed. Whoever is killed in between has left a lease that says so: the next pass finds that
process dead, takes the lease over, and stores what is missing.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import dagster as dg
from dagster_shared.check import CheckError

from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.bundle import LEFT_RECORD
from dagster_slurm_components.jobs.events import MESSAGES, Ended
from dagster_slurm_components.jobs.figures import job_figures
from dagster_slurm_components.jobs.lease import CANCELLED, COLLECTED, ENDED, REPORTING, Attempt
from dagster_slurm_components.jobs.look import JobInfo, ends_of_stderr, look_at
from dagster_slurm_components.jobs.meter import MOST_NODES
from dagster_slurm_components.jobs.outcome import end_word, judge
from dagster_slurm_components.jobs.outputs import MADE, parse_made
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.jobs.reconcile import Observation
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.jobs.usage import NodeUsage, parse_usage, usage_file
from dagster_slurm_components.pipes.advice import pictures
from dagster_slurm_components.pipes.failure import failure_text
from dagster_slurm_components.pipes.left.leave import LeftRecord, left_jobs_of, observations, waiting
from dagster_slurm_components.pipes.left.report import Report, read_results
from dagster_slurm_components.pipes.outputs import output_figures, previews
from dagster_slurm_components.pipes.pull import not_pulled
from dagster_slurm_components.pipes.results import typed
from dagster_slurm_components.pipes.runs import Finding

_LONGEST = 1.0
"""Seconds after which a pass begins with no further results; those left over wait for the next one."""
_AT_ONCE = 4
"""Jobs that are taken, and whose files are read by one call, before the clock is looked at again."""
_PIECE = 4 * 1024 * 1024
_TAIL_LINES = 20
_SURE = 60.0
"""Seconds after the last sign of life in a lease for which this process is sure that nobody else reports."""
_SILENCE = 180.0
"""Seconds without one after which whoever began to report is taken to be gone, where it can't be proven."""
_REFUSALS = (dg.DagsterError, CheckError, KeyError, TypeError, ValueError, AttributeError)
"""What is raised for a record that is damaged, and for an event that Dagster does not take."""
_ONE_PASS = threading.Lock()
"""Held by a pass: two in one process, as after a daemon that was killed, would take each other for the same."""


class _NotSureError(RuntimeError):
    """So much time has passed that somebody else may report by now."""


@dataclass(frozen=True)
class _Taken:
    """A job that has ended, and whose results are this process's to report.

    Attributes:
        again: Whether an earlier process may have begun.
        at: When it was taken, by this process's monotonic clock.
    """

    attempt: Attempt
    info: JobInfo
    again: bool
    at: float

    def still_ours(self) -> None:
        """Raise where the process slept for so long that this is not sure any more."""
        if time.monotonic() - self.at > _SURE:
            raise _NotSureError(self.attempt.run_dir)


@dataclass(frozen=True)
class LeftJobs:
    """Looks after the left jobs of one profile.

    Attributes:
        before: What was known of each job, by run directory, at the last look of this process.
        co2_g_per_kwh: What the profile's ``cost`` says.
    """

    instance: dg.DagsterInstance
    place: Target
    profile: str
    before: dict[str, Observation]
    log: logging.Logger
    co2_g_per_kwh: float | None = None

    def look_after(
        self, attempts: Sequence[Attempt], now: float, reported: frozenset[str]
    ) -> Iterator[Finding]:
        """Report what came of those that have ended. Costs one read and one query of the queue where none has.

        A finding without a text was told to Dagster.

        Raises:
            HostError: The host gives no answer.
        """
        if not attempts or not _ONE_PASS.acquire(blocking=False):
            return
        try:
            began, ours = time.monotonic(), [each for each in attempts if self._is_ours(each)]
            infos = look_at(self.place, ours, self.before)
            seen = [(each, info) for each, info in zip(ours, infos, strict=True) if info is not None]
            self.before.clear()
            self.before.update({each.run_dir: info.observation for each, info in seen})
            ended = [(each, info) for each, info in seen if info.observation.terminal and _is_free(each, now)]
            for begin in range(0, len(ended), _AT_ONCE):
                if time.monotonic() - began > _LONGEST:
                    break
                yield from self._report_all(ended[begin : begin + _AT_ONCE])
            waits = [(each, info) for each, info in seen if each.ledger.token not in reported]
            starting = [(each, info) for each, info in waits if info.observation.starts_at is not None]
            for begin in range(0, len(starting), _AT_ONCE):
                if time.monotonic() - began > _LONGEST:
                    break
                yield from self._expected(starting[begin : begin + _AT_ONCE])
        finally:
            _ONE_PASS.release()

    @cached_property
    def _ours(self) -> str:
        return f"{self.place.workdir}/runs/{left_jobs_of(self.instance)}-"

    def _is_ours(self, attempt: Attempt) -> bool:
        """Whether this Dagster instance left it: others may share the working folder."""
        return attempt.run_dir.startswith(self._ours)

    def _expected(self, waits: Sequence[tuple[Attempt, JobInfo]]) -> Iterator[Finding]:
        """Observe when Slurm expects to start jobs that wait."""
        for (attempt, info), files in zip(waits, self._read([each for each, _ in waits]), strict=True):
            try:
                record = LeftRecord.loads(files[LEFT_RECORD])
            except _REFUSALS:
                continue  # told of when its results are to be reported
            for event in observations(record, waiting(info.handle, info.observation)):
                self.instance.report_runless_asset_event(event)
            yield Finding(attempt.ledger.token, "", "")

    def _report_all(self, ended: Sequence[tuple[Attempt, JobInfo]]) -> Iterator[Finding]:
        taken = [each for attempt, info in ended if (each := self._take(attempt, info)) is not None]
        for each, files in zip(taken, self._read([each.attempt for each in taken]), strict=True):
            run_id = each.attempt.lease.owner.run_id if each.attempt.lease.owner else ""
            try:
                text = self._report(each, files)
            except _NotSureError:
                continue  # the next pass looks what is missing
            except _REFUSALS as error:
                why = " ".join(f"{type(error).__name__}: {error}".split())[:500]
                text = f"What came of {self._job(each)} can't be reported: {why}. It is tried again."
                yield Finding(f"unreported {each.attempt.run_dir}", run_id, text)
            else:
                if text:
                    yield Finding(f"ended {each.attempt.run_dir} {each.attempt.lease.epoch}", run_id, text)

    def _take(self, attempt: Attempt, info: JobInfo) -> _Taken | None:
        """Take a job that has ended, with the word for that; return nothing where somebody else was quicker."""
        again = attempt.lease.state == REPORTING
        owner = Owner.of(attempt.lease.owner.run_id if attempt.lease.owner else "", os.getpid())
        at = time.monotonic()
        lease = self.place.leases.take(
            attempt,
            owner,
            state=REPORTING,
            outcome=None if again else end_word(Ended(info.observation, info.evidence)),
        )
        return None if lease is None else _Taken(replace(attempt, lease=lease), info, again, at)

    def _report(self, taken: _Taken, files: Mapping[str, bytes]) -> str:
        """Report one job and close its lease; return what is to be told of it, if anything."""
        attempt, lease = taken.attempt, taken.attempt.lease
        record = LeftRecord.loads(files[LEFT_RECORD])
        messages = taken.info.handle.file(MESSAGES)
        reported, reader = read_results(self._rest(messages, files[MESSAGES]), record, messages)
        for complaint in reader.complaints:
            self.log.warning(f"{self._job(taken)}: {complaint}")
        for note in reader.notes:
            self.log.info(f"{self._job(taken)}: {note}")
        made = parse_made(files[MADE], attempt.run_dir)
        ended = Ended(taken.info.observation, taken.info.evidence, self._usage(taken.info), made)
        host = self.place.satellite.host.name
        told = job_figures(
            taken.info.handle, ended, profile=self.profile, host=host, co2_g_per_kwh=self.co2_g_per_kwh
        )
        figures = {**told, **record.asked}
        figures |= {**pictures(ended, figures), **output_figures(ended, taken.info.handle, self.profile)}
        if lease.succeeded:
            figures |= previews(made, self.place.satellite)
            figures |= not_pulled(made, taken.info.handle, self.profile)
        link = {"job/left_by": dg.MetadataValue.dagster_run(record.run_id)}
        since = lease.finished if taken.again else None
        report = Report(self.instance, record, {**typed(figures), **link}, since, taken.still_ours, made)
        if lease.succeeded:
            report.success(reported)
            self.place.leases.change(attempt.run_dir, lease.epoch, COLLECTED)
            return ""
        (end,) = ends_of_stderr(self.place, [taken.info.handle])
        tail, outcome = "\n".join(end.splitlines()[-_TAIL_LINES:]), judge(ended)
        text = failure_text(outcome, "", exception=reader.exception, stderr=tail, figures=figures)
        cancelled = lease.outcome == "CANCELLED"
        report.failure(reported, text, cancelled=cancelled)
        self.place.leases.change(attempt.run_dir, lease.epoch, CANCELLED if cancelled else ENDED)
        look = f"`dg-slurm jobs logs {figures['job/id']} --profile {self.profile}` shows its output"
        return (
            f"{self._job(taken)} has ended: {outcome.message} Its run directory is {attempt.run_dir}; {look}."
        )

    def _usage(self, info: JobInfo) -> tuple[NodeUsage, ...]:
        """Return what a job used on its nodes; of very many on the first of them."""
        status = info.evidence.status
        nodes = min(MOST_NODES, status.nodes) if status else 0
        wanted = [FileRead(info.handle.file(usage_file(node)), 0, _PIECE) for node in range(nodes)]
        files = self.place.satellite.read(wanted) if wanted else []
        return tuple(found for file in files if (found := parse_usage(file.data)) is not None)

    def _read(self, attempts: Sequence[Attempt]) -> list[dict[str, bytes]]:
        """Return the beginning of the files that results are in: one call."""
        if not attempts:
            return []
        names = (LEFT_RECORD, MESSAGES, MADE)
        wanted = [FileRead(f"{each.run_dir}/{name}", 0, _PIECE) for each in attempts for name in names]
        data = iter([file.data for file in self.place.satellite.read(wanted)])
        return [{name: next(data) for name in names} for _ in attempts]

    def _rest(self, path: str, begin: bytes) -> Iterator[bytes]:
        """Yield a file, of which the beginning was read."""
        piece, offset = begin, 0
        while piece:
            yield piece
            offset += len(piece)
            (file,) = self.place.satellite.read([FileRead(path, offset, _PIECE)])
            piece = file.data

    def _job(self, taken: _Taken) -> str:
        return f"Job {taken.info.handle.job_id} on {self.place.satellite.host.name} (profile {self.profile})"


def _is_free(attempt: Attempt, now: float) -> bool:
    """Whether nobody reports it: it is still left, or whoever began is gone, or was an earlier pass of this process."""
    lease = attempt.lease
    if lease.state != REPORTING or lease.owner is None:
        return True
    ours = lease.owner == Owner.of(lease.owner.run_id, os.getpid())
    return ours or lease.owner.known_dead() or now - lease.renewed > _SILENCE
