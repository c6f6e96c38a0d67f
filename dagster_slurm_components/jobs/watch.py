"""The watcher looks after all jobs of a host and process together.

Data: a ``Watch`` a job, which holds file offsets, the newest evidence and the observation. Only ``step`` changes it;
whoever follows the job receives events through a queue.

Each step makes one call to the host for the files of all jobs that are due.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dagster_slurm_components.errors import HostError, HostUnreachableError, SatelliteError
from dagster_slurm_components.hosts.calls import FileData, FileRead, LeaseRenewal
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.parked import parked_too_long
from dagster_slurm_components.jobs.cadence import TokenBucket, file_interval, read_interval, tick
from dagster_slurm_components.jobs.events import (
    STATUS,
    STDERR,
    STDOUT,
    Back,
    Broken,
    Changed,
    Ended,
    LeaseChanged,
    Silent,
    Skipped,
    Text,
    Watch,
)
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.questions import Questions
from dagster_slurm_components.jobs.reconcile import Patience, reconcile
from dagster_slurm_components.jobs.schedulers import Scheduler
from dagster_slurm_components.jobs.status import parse_status

_BYTES_PER_FILE = 256 * 1024
_BYTES_PER_TICK = 4 * 1024 * 1024
_MOST_BACKLOG = 8 * 1024 * 1024
_MOST_LAG = 64 * 1024 * 1024
_KEPT = 1024 * 1024
"""A stream that lies further behind than the one is followed again from the other before its end: a step must not
go on printing for an hour after its job. Messages are never left out."""
_REDIAL = (0.5, 30.0)
_IDLE = 5.0
_RENEW = 2.0
"""Seconds between two looks at a job's lease. It is written then only where there is news of what was shown, or after
``satellite.leases.RENEW``."""
_METRICS_SHARE = 0.05
_METRICS_MOST = 5.0


class Watcher:
    """Looks after all jobs of one host for one process; somebody has to call ``step`` again and again.

    Args:
        satellite: The host.
        scheduler: Whom to ask for queue and accounting.
        budget: Slurm queries this process may make.
        operations_per_second: File operations the host should bear.
        patience: How long silences are waited out.
        park_timeout: Seconds after which a lost host, or a login that nobody renews, ends the watching.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        satellite: Satellite,
        scheduler: Scheduler,
        *,
        budget: TokenBucket,
        operations_per_second: float,
        patience: Patience,
        park_timeout: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._satellite = satellite
        self._scheduler = scheduler
        self._budget = budget
        self._operations = operations_per_second
        self._patience = patience
        self._park_timeout = park_timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._watches: list[Watch] = []
        self._silent_since: float | None = None
        self._redial = _REDIAL[0]
        self._questions = Questions(scheduler, satellite, budget)

    def watch(
        self,
        handle: JobHandle,
        *,
        offsets: Mapping[str, int] | None = None,
        inodes: Mapping[str, int] | None = None,
        epoch: int | None = None,
    ) -> Watch:
        """Begin to follow a job.

        Args:
            handle: The job.
            offsets: Bytes of each streamed file that were seen before and are not delivered again.
            inodes: Which files these were; another file of that name is delivered from its beginning.
            epoch: The epoch of the job's lease, for who follows it: reading then renews the lease.
        """
        now = self._clock()
        watch = Watch(
            handle,
            began=now,
            changed_at=now,
            offsets=dict(offsets or {}),
            inodes=dict(inodes or {}),
            epoch=epoch,
            renew_at=now + _RENEW,
        )
        with self._lock:
            self._watches.append(watch)
        self._questions.soon(now)
        return watch

    def fail(self, error: Exception) -> None:
        """End all watching with an error: a step must never wait for a watcher that is gone (D9)."""
        with self._lock:
            watches, self._watches = self._watches, []
        for watch in watches:
            watch.put(Broken(error))
            watch.close()

    @property
    def idle(self) -> bool:
        """Whether there is no job to look after."""
        with self._lock:
            return not self._watches

    def hurry(self) -> None:
        """Ask the queue as soon as after a submission."""
        self._questions.soon(self._clock())

    def rest(self) -> None:
        """Let go of what an idle watcher does not need."""
        self._questions.close()

    def step(self) -> float:
        """Do one tick and return the seconds until the next."""
        now = self._clock()
        with self._lock:
            self._watches = [watch for watch in self._watches if not watch.closed]
            watches = list(self._watches)
        if not watches:
            return _IDLE
        due = [watch for watch in watches if watch.read_at <= now and watch.backlog < _MOST_BACKLOG]
        try:
            if due:
                self._read(due, now)
                self._heard(watches, now)
            self._questions.ask(watches, now)
            for error in self._questions.answer(watches, now):
                self._unheard(watches, error, now)
        except HostUnreachableError as error:
            self._unheard(watches, error, now)
            return self._redial
        except SatelliteError as error:  # a full disk or too many open files there: it passes, the jobs go on
            self._unheard(watches, HostUnreachableError(error.message, where=error.where), now)
            return self._redial
        except HostError as error:
            self.fail(error)
            return 0.0
        for watch in watches:
            self._judge(watch, now)
        return self._delay(watches)

    def _read(self, due: Sequence[Watch], now: float) -> None:
        requests = [
            FileRead(watch.handle.file(name), watch.offsets.get(name, 0), _BYTES_PER_FILE)
            for watch in due
            for name in watch.files
        ]
        answers = iter(self._read_and_renew(due, requests, now))
        least = file_interval(len(requests), self._operations)
        for watch in due:
            more = False
            for name in watch.files:
                more |= self._take(watch, name, next(answers))
            interval = read_interval(now - watch.changed_at)
            if more:
                interval = 0.0
            elif watch.closing_until is not None and watch.closing_until <= now:
                watch.put(Ended(watch.observation, watch.evidence))
                watch.close()
            watch.read_at = now + max(interval, least)

    def _read_and_renew(
        self, due: Sequence[Watch], requests: Sequence[FileRead], now: float
    ) -> Sequence[FileData]:
        """Read files; the leases whose time has come are renewed in the same call."""
        renewing = [watch for watch in due if watch.epoch is not None and watch.renew_at <= now]
        if not renewing:
            return self._satellite.read(requests, total=_BYTES_PER_TICK)
        shown = [watch.shown if watch.shown != watch.shown_written else None for watch in renewing]
        renewals = [
            LeaseRenewal(watch.handle.run_dir, watch.epoch or 0, None if seen is None else seen.written())
            for watch, seen in zip(renewing, shown, strict=True)
        ]
        files, leases = self._satellite.follow(requests, renewals, total=_BYTES_PER_TICK)
        for watch, seen, (epoch, state) in zip(renewing, shown, leases, strict=True):
            watch.renew_at = now + _RENEW
            watch.shown_written = watch.shown_written if seen is None else seen
            if epoch != watch.epoch or state != watch.lease_state:
                watch.lease_state = state
                watch.put(LeaseChanged(epoch, state))
        return files

    def _take(self, watch: Watch, name: str, file: FileData) -> bool:
        """Use what was read of one file; return whether more of it waits."""
        if not file.exists:
            return False
        offset = watch.offsets.get(name, 0)
        rewound = file.size < offset or watch.inodes.get(name, file.inode) != file.inode
        watch.inodes[name] = file.inode
        if rewound:
            watch.offsets[name] = 0
            if name == STATUS:
                watch.status_text = b""
            else:
                watch.put(Text(name, b"", rewound=True))
            return True
        if not file.data:
            return False
        watch.offsets[name] = offset + len(file.data)
        left = file.size - watch.offsets[name]
        if name in (STDOUT, STDERR) and left > _MOST_LAG:
            watch.put(Text(name, file.data))
            watch.put(Skipped(name, left - _KEPT))
            watch.offsets[name] = file.size - _KEPT
        elif name == STATUS:
            watch.status_text += file.data
            watch.evidence = replace(watch.evidence, status=parse_status(watch.status_text))
        else:
            watch.put(Text(name, file.data))
        return watch.offsets[name] < file.size

    def _judge(self, watch: Watch, now: float) -> None:
        """Reconcile a job's sources; once it has ended, let its output drain."""
        if watch.observation.terminal:
            if watch.evidence.accounting is not None and watch.closing_until is not None:
                watch.closing_until = min(watch.closing_until, now)
            return
        before = watch.observation
        if watch.evidence is watch.judged and not before.wants_accounting:
            return  # time alone changes nothing where no silence is being waited out
        watch.judged = watch.evidence
        watch.observation = reconcile(before, watch.evidence, now, self._patience)
        if watch.observation == before:
            return
        if watch.observation.phase is not before.phase or watch.observation.restarts != before.restarts:
            watch.changed_at = now
            self._questions.soon(now)
        watch.put(Changed(watch.observation, watch.evidence.status))
        if watch.observation.terminal:
            watch.closing_until = now + self._metrics_wait(watch)
            watch.read_at = now

    def _metrics_wait(self, watch: Watch) -> float:
        """Return the seconds worth waiting for the accounting's figures: a twentieth of the job's own time."""
        status = watch.evidence.status
        if not self._scheduler.has_accounting or watch.evidence.accounting or not status:
            return 0.0
        elapsed = (status.ended or 0.0) - (status.started or 0.0)
        return max(0.0, min(_METRICS_MOST, _METRICS_SHARE * elapsed))

    def _unheard(self, watches: Sequence[Watch], error: HostUnreachableError, now: float) -> None:
        if self._silent_since is None:
            self._silent_since = now
        parked = now - self._silent_since
        for watch in watches:
            if parked > self._park_timeout:
                watch.put(Broken(parked_too_long(error, parked)))
                watch.close()
            elif watch.silence is not type(error):
                watch.silence = type(error)
                watch.put(Silent(error))
        self._redial = min(_REDIAL[1], self._redial * 2)

    def _heard(self, watches: Sequence[Watch], now: float) -> None:
        if self._silent_since is not None:
            for watch in watches:
                if watch.silence is not None:
                    watch.silence = None
                    watch.put(Back(now - self._silent_since))
        self._silent_since = None
        self._redial = _REDIAL[0]

    def _delay(self, watches: Sequence[Watch]) -> float:
        open_watches = [watch for watch in watches if not watch.closed]
        if not open_watches:
            return 0.0
        now = self._clock()
        due = min(watch.read_at for watch in open_watches)
        return max(tick(len(open_watches)), min(due, self._questions.due(open_watches)) - now)


class WatcherThread:
    """Steps a watcher for as long as it has jobs, in a thread that ends when they have ended.

    Args:
        watcher: The watcher.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(
        self,
        handle: JobHandle,
        *,
        offsets: Mapping[str, int] | None = None,
        inodes: Mapping[str, int] | None = None,
        epoch: int | None = None,
    ) -> Watch:
        """Begin to follow a job; see ``Watcher.watch``."""
        with self._lock:
            watch = self._watcher.watch(handle, offsets=offsets, inodes=inodes, epoch=epoch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dagster-slurm-watcher", daemon=True)
                self._thread.start()
        self._wake.set()
        return watch

    def hurry(self) -> None:
        """Something was done to a job that only the scheduler can confirm: ask it soon."""
        self._watcher.hurry()
        self._wake.set()

    def _run(self) -> None:
        idle_since: float | None = None
        while True:
            try:
                delay = self._watcher.step()
            except Exception as error:  # noqa: BLE001 - told to everyone who waits for this thread
                self._watcher.fail(error)
                delay = 0.0
            now = time.monotonic()
            with self._lock:
                if not self._watcher.idle:
                    idle_since = None
                elif idle_since is None:
                    idle_since = now
                elif now - idle_since > _IDLE:
                    self._watcher.rest()
                    self._thread = None
                    return
            self._wake.wait(delay)
            self._wake.clear()
