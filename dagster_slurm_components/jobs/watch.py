"""The watcher looks after all jobs of a host and process together, in one thread.

Only its ``step`` changes a job's ``Watch``, and makes one call to the host for the files of all jobs that are due;
whoever follows the job receives events through a queue.
"""

import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from dagster_slurm_components.errors import HostUnreachableError, SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.parked import parked_too_long
from dagster_slurm_components.hosts.satellite.calls import FileData, FileRead, LeaseRenewal
from dagster_slurm_components.jobs import events
from dagster_slurm_components.jobs.events import LAG, Part, Watch
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.outputs import MADE
from dagster_slurm_components.jobs.polling import Poller
from dagster_slurm_components.jobs.reconcile import Evidence, reconcile
from dagster_slurm_components.jobs.schedulers import Scheduler

_BYTES_PER_FILE = 256 * 1024
_BYTES_PER_STEP = 4 * 1024 * 1024
_MAX_BACKLOG = 8 * 1024 * 1024
_REDIAL = (0.5, 30.0)
_RENEW = 2.0
"""Seconds between two looks at a job's lease. It is written then only where there is news of what was shown, or after
``satellite.leases.RENEW``."""
_METRICS_SHARE = 0.05
_METRICS_MOST = 5.0
_CONFIRMED = 10.0
"""Seconds for Slurm to confirm the end of a job that we cancelled ourselves."""
_EXPLAINED = 90.0
"""Seconds that an ended job of which only the accounting knows more waits, at most, until that may be asked."""
_YOUNG = 60.0
_JUST_SUBMITTED = 10.0
_WAITING_INTERVALS = (0.2, 30.0)
"""The queue tells of the start of a job that waits longer."""
_EAGER = 0.5
_NEWS = 0.5
_ELEMENT = 5.0
"""Seconds between two looks at an element that runs: the array's news tell when there is something to see."""
_READ_INTERVALS = (0.2, 1.5)
"""With the step of a watcher of 1,000 jobs (0.21 s) this keeps the 95th percentile of the lag below 2 s."""
_QUIET_SHARE = 0.005
_QUIET_MOST = 15.0
_OTHERS = 0.25
"""The part of a host's file operations that is for others than the watcher, while there are any."""
_STEP_INTERVALS = (0.01, 0.25)
_STEP_PER_JOB = 0.0002


def read_interval(age: float, *, started: bool = True, quiet: float = 0.0) -> float:
    """Return the seconds between two looks at a job's files, so long after something changed in its life.

    One that waits in the queue for minutes most likely does so for hours, and there may be a thousand of them. One that
    has been ``quiet`` for so many seconds, too.
    """
    shortest, longest = _READ_INTERVALS if started else _WAITING_INTERVALS
    interval = min(longest, shortest * max(1.0, age / (_YOUNG if started else _JUST_SUBMITTED)))
    return max(interval, min(_QUIET_MOST, quiet * _QUIET_SHARE))


@dataclass(eq=False)
class Watcher:
    """Looks after all jobs of one host for one process.

    Attributes:
        satellite: The host.
        scheduler: Whom to ask for queue and accounting, and how long their silences are waited out.
        operations_per_second: File operations the host should bear, of all processes together.
        park_timeout: Seconds after which a lost host, or a login that nobody renews, ends the watching.
        clock: A monotonic clock, in seconds.
        threaded: Whether a thread calls ``step``, for as long as there are jobs; else somebody else has to.
        note: Called at each try of a lost host.
    """

    satellite: Satellite
    scheduler: Scheduler
    operations_per_second: float
    park_timeout: float = math.inf
    clock: Callable[[], float] = time.monotonic
    threaded: bool = True
    note: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._watches: list[Watch] = []
        self._poller = Poller(self.scheduler, self.satellite)
        self._lost_since: float | None = None
        self._redial = _REDIAL[0]
        self._paced = -math.inf

    @property
    def _rate(self) -> float:
        """File operations a second that this process may make."""
        return self.operations_per_second * self._poller.share

    def pace(self, operations: int) -> float:
        """Count file operations that somebody else has made for a job; return the seconds until more may follow."""
        with self._lock:
            now = self.clock()
            self._paced = max(self._paced, now) + operations / (self._rate * _OTHERS)
            return self._paced - now

    def watch(
        self,
        handle: JobHandle,
        *,
        offsets: Mapping[str, int] | None = None,
        inodes: Mapping[str, int] | None = None,
        epoch: int | None = None,
        part: Part = Part.JOB,
        told: queue.SimpleQueue[tuple[Watch, events.Event]] | None = None,
    ) -> Watch:
        """Begin to follow a job; with the ``epoch`` of its lease reading renews that. Many may share a queue ``told``.

        Bytes of its files that were seen before, so many of each, are not delivered again, if its inode is the same.
        """
        now = self.clock()
        seen = dict(offsets or {}), dict(inodes or {})
        watch = Watch(
            handle, epoch, part, told or queue.SimpleQueue(), *seen, began=now, changed_at=now, heard_at=now
        )
        watch.renew_at = now + _RENEW
        with self._lock:
            if self.idle:
                # That the host was lost concerned jobs that nobody waits for any more.
                self._lost_since = None
            self._watches.append(watch)
            if self.threaded and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dagster-slurm-watcher", daemon=True)
                self._thread.start()
        self._poller.soon(now)
        self._wake.set()
        return watch

    def cancelled(self, handle: JobHandle) -> None:
        """We cancelled a job ourselves: nobody needs to explain its end, and the scheduler is asked to confirm it."""
        with self._lock:
            watches = list(self._watches)
        for watch in watches:
            # An array, or a task of it.
            if handle.job_id in (watch.handle.job_id, watch.handle.job_id.partition("_")[0]):
                watch.cancelled = True
        self._poller.soon(self.clock(), urgent=True)
        self._wake.set()

    @property
    def idle(self) -> bool:
        """Whether there is no job to look after."""
        return all(watch.closed for watch in self._watches)

    def _run(self) -> None:
        while True:
            delay = self.step()
            with self._lock:
                if self.idle:
                    self._thread = None
                    return
            self._wake.wait(delay)
            self._wake.clear()

    def step(self) -> float:
        """Look after each job once and return the seconds until the next step.

        An error of any kind ends the watching of all jobs: a step must never wait for a watcher that is gone (D9).
        """
        try:
            return self._step()
        except Exception as error:  # noqa: BLE001 - handed on to everyone who waits for this watcher
            with self._lock:
                watches, self._watches = self._watches, []
            for watch in watches:
                watch.put(events.WatchFailed(error))
                watch.close()
            return 0.0

    def _step(self) -> float:
        now = self.clock()
        with self._lock:
            self._watches = [watch for watch in self._watches if not watch.closed]
            watches = list(self._watches)
        jobs = [watch for watch in watches if watch.part is not Part.LEASE]
        due = [watch for watch in watches if watch.read_at <= now and watch.backlog < _MAX_BACKLOG]
        try:
            if due:
                self._read(due, now)
                self._host_is_back(watches, now)
            self._poller.poll(jobs, now)
        except HostUnreachableError as error:
            return self._host_is_lost(watches, error, now)
        except SatelliteError as error:  # a full disk or too many open files there: it passes, the jobs go on
            return self._host_is_lost(watches, HostUnreachableError(error.message, where=error.where), now)
        for watch in jobs:
            self._judge(watch, now)
        return self._delay(watches)

    def _read(self, due: Sequence[Watch], now: float) -> None:
        requests = [
            FileRead(watch.handle.file(name), watch.offsets.get(name, 0), _BYTES_PER_FILE)
            for watch in due
            for name in watch.files
        ]
        usage = [(watch, node, read) for watch in due for node, read in watch.usage_reads(now)]
        answers = self._read_and_renew(due, [*(read for _, _, read in usage), *requests], now)
        least = len(answers) / (self._rate * (1 - _OTHERS if self._paced > now else 1))
        files = iter(answers)
        for watch, node, _ in usage:
            watch.meter.take(node, next(files), now)
        for watch in due:
            before = sum(watch.offsets.values())
            names = watch.files
            more = [watch.take(name, next(files)) for name in names]
            if sum(watch.offsets.values()) != before:
                watch.heard_at = now
            started = watch.evidence.status is not None
            interval = read_interval(now - watch.changed_at, started=started, quiet=now - watch.heard_at)
            if watch.part is Part.LEASE:
                interval = _NEWS
            elif watch.part is Part.ELEMENT and started:
                interval = max(interval, _ELEMENT)
            elif watch.eager and not started:
                interval = min(interval, _EAGER)
            if any(more) or watch.meter.reads_on or (MADE in watch.files and MADE not in names):
                interval = 0.0
            elif watch.closing_until is not None and watch.closing_until <= now:
                watch.put(watch.ended)
                watch.close()
            watch.read_at = now + max(interval, least)

    def _read_and_renew(
        self, due: Sequence[Watch], requests: Sequence[FileRead], now: float
    ) -> Sequence[FileData]:
        """Read files; the leases whose time has come are renewed in the same call."""
        # Who follows a job may go on showing meanwhile: what is told here is what counts as written.
        renewing = [
            (watch, watch.epoch, watch.shown)
            for watch in due
            if watch.epoch is not None and watch.renew_at <= now
        ]
        renewals = [
            LeaseRenewal(
                watch.handle.run_dir, epoch, asdict(shown) if shown and shown != watch.shown_written else None
            )
            for watch, epoch, shown in renewing
        ]
        files, leases = self.satellite.follow(requests, renewals, total=_BYTES_PER_STEP)
        for (watch, _, shown), (epoch, state) in zip(renewing, leases, strict=True):
            watch.renew_at = now + _RENEW
            watch.shown_written = shown
            if epoch != watch.epoch or state != watch.lease_state:
                watch.lease_state = state
                watch.put(events.LeaseChanged(epoch, state))
        return files

    def _judge(self, watch: Watch, now: float) -> None:
        """Reconcile a job's sources; once it has ended, let its output drain."""
        before = watch.observation
        if before.terminal:
            self._close(watch, now)
            return
        if watch.evidence is watch.judged and not before.wants_accounting:
            return  # time alone changes nothing where no silence is being waited out
        wanted = watch.wants_accounting
        if watch.evidence.words and watch.evidence.words != (watch.judged or Evidence()).words:
            self._poller.soon(now, urgent=True)
        watch.judged = watch.evidence
        evidence, patience = watch.evidence, self.scheduler.patience
        if watch.cancelled:
            evidence = replace(evidence, asked=now)
            patience = replace(patience, explanation=min(patience.explanation, _CONFIRMED))
        watch.observation = job = reconcile(before, evidence, now, patience)
        if job == before:
            return
        if job.phase is not before.phase or job.restarts != before.restarts:
            watch.changed_at = watch.heard_at = watch.read_at = now
        if job.restarts != before.restarts:
            watch.forget()
        if job.ended_since is not None and before.ended_since is None and not job.terminal:
            self._poller.soon(now, urgent=True)
        watch.put(events.Changed(job, watch.evidence.status))
        if job.terminal:
            watch.meter.end(watch.evidence.status.nodes if watch.evidence.status else 0)
            explained = watch.explained or not self.scheduler.has_accounting
            wait = self._metrics_wait(watch) if explained else patience.explanation
            watch.closing_until = now + wait
        if watch.wants_accounting and not wanted:
            watch.want_accounting(now + LAG)

    def _close(self, watch: Watch, now: float) -> None:
        """An ended job waits for the accounting no longer than need be, and until it was asked where that is needed."""
        if watch.closing_until is None:
            return
        if watch.accounted or not self.scheduler.has_accounting:
            watch.closing_until = min(watch.closing_until, now)
        elif not watch.explained and watch.accounting_asked is None and now < watch.changed_at + _EXPLAINED:
            watch.closing_until = max(watch.closing_until, now + 2 * LAG)

    def _metrics_wait(self, watch: Watch) -> float:
        """Return the seconds worth waiting for the accounting's figures: a twentieth of the job's own time."""
        status = watch.evidence.status
        waits = self.scheduler.has_accounting and watch.part is Part.JOB and not watch.cancelled
        if not waits or watch.accounted or not status:
            return 0.0
        elapsed = (status.ended or 0.0) - (status.started or 0.0)
        return max(0.0, min(_METRICS_MOST, _METRICS_SHARE * elapsed))

    def _host_is_lost(self, watches: Sequence[Watch], error: HostUnreachableError, now: float) -> float:
        """Tell who follows the jobs; return the seconds until the host is tried again."""
        if self._lost_since is None:
            self._lost_since = now
        self.note()
        parked = now - self._lost_since
        for watch in watches:
            if parked > self.park_timeout:
                watch.put(events.WatchFailed(parked_too_long(error, parked)))
                watch.close()
            elif watch.host_error is not type(error):
                watch.host_error = type(error)
                watch.put(events.HostLost(error))
        self._redial = min(_REDIAL[1], self._redial * 2)
        return self._redial

    def _host_is_back(self, watches: Sequence[Watch], now: float) -> None:
        if self._lost_since is None:
            return
        for watch in watches:
            if watch.host_error is not None:
                watch.host_error = None
                watch.put(events.HostBack(now - self._lost_since))
        self._lost_since = None
        self._redial = _REDIAL[0]

    def _delay(self, watches: Sequence[Watch]) -> float:
        live = [watch for watch in watches if not watch.closed]
        if not live:
            return 0.0
        # Each step costs a look at every job.
        shortest = min(_STEP_INTERVALS[1], _STEP_INTERVALS[0] + _STEP_PER_JOB * len(live))
        due = min(self._poller.due(live), *(watch.read_at for watch in live))
        return max(shortest, due - self.clock())
