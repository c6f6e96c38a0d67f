"""A watcher with a host of files, a queue that can fail, and a clock that only moves when told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from waiting import PATIENCE

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.satellite.budget import may_ask
from dagster_slurm_components.hosts.satellite.calls import Budget, FileData, FileRead, LeaseRenewal
from dagster_slurm_components.jobs.events import (
    Event,
    Output,
    Watch,
)
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.reconcile import Patience
from dagster_slurm_components.jobs.schedulers import AccountingRows, QueueRows, SlurmScheduler
from dagster_slurm_components.jobs.watch import Watcher
from dagster_slurm_components.slurm.accounting import AccountingRow
from dagster_slurm_components.slurm.queue import QueueRow


@dataclass
class Files:
    """The files of a host, as a satellite reads them."""

    content: dict[str, bytes] = field(default_factory=dict)
    inodes: dict[str, int] = field(default_factory=dict)
    error: Exception | None = None
    calls: int = 0
    leases: dict[str, tuple[int, str]] = field(default_factory=dict)
    renewals: list[LeaseRenewal] = field(default_factory=list)

    def append(self, path: str, data: bytes) -> None:
        self.content[path] = self.content.get(path, b"") + data

    def read(self, requests: Sequence[FileRead], *, total: int) -> list[FileData]:
        self.calls += 1
        if self.error:
            raise self.error
        return [self._one(request) for request in requests]

    def follow(
        self, requests: Sequence[FileRead], renewals: Sequence[LeaseRenewal], *, total: int
    ) -> tuple[list[FileData], list[tuple[int, str]]]:
        """Read, and note who gave a sign of life."""
        files = self.read(requests, total=total)
        self.renewals += renewals
        told = [self.leases.get(each.run_dir, (each.epoch, "following")) for each in renewals]
        return files, told

    def _one(self, request: FileRead) -> FileData:
        found = self.content.get(request.path)
        if found is None:
            return FileData(False, 0, 0, b"")
        data = found[request.offset : request.offset + request.limit]
        inode = self.inodes.get(request.path, 1)
        return FileData(True, len(found), inode, data)


@dataclass
class Queue:
    """A scheduler whose answers are set by the test, and whose queries have a budget, as the host keeps it."""

    rows: dict[str, QueueRow] | None = None
    books: dict[str, AccountingRow] | None = None
    books_age: float = 0.0
    error: Exception | None = None
    asked: int = 0
    share: float = 1.0
    questions: list[tuple[str, int]] = field(default_factory=list)
    clock: Callable[[], float] = lambda: 0.0
    budget: Budget = field(default_factory=lambda: Budget("", 2, 10))
    name = "slurm"
    has_accounting = True
    first_query, look, max_age = SlurmScheduler.first_query, SlurmScheduler.look, SlurmScheduler.max_age
    patience = Patience()

    def __post_init__(self) -> None:
        self.tokens, self.filled = self.budget.burst, 0.0
        self._last: dict[str, float] = {}
        self._shot: tuple[float, dict[str, QueueRow] | None] | None = None
        self._failed = 0.0
        self.looks = 0

    def drain(self, tokens: float = 0.0) -> None:
        """Others have used up the budget just now."""
        self.tokens, self.filled = tokens, self.clock()
        self._last = {"queue": self.filled, "accounting": self.filled}

    def _spend(self, kind: str, spare: bool = False) -> bool:
        now = self.clock()
        refill = (now - self.filled) * self.budget.per_minute / 60
        self.tokens, self.filled = min(self.budget.burst, self.tokens + refill), now
        granted = may_ask(self.tokens, now - self._last.get(kind, -1e9), self.budget, spare)
        if granted:
            self.tokens -= 1
            self._last[kind] = now
        return granted

    def queue(self, satellite: object, handles: Sequence[JobHandle], max_age: float) -> QueueRows:
        self.looks += 1
        if self.error:
            self.asked += 1
            raise self.error
        now = self.clock()
        if self._shot is not None and now - self._shot[0] <= max_age:
            return QueueRows(self._shot[1], now - self._shot[0], share=self.share)
        if not self._spend("queue"):
            if self._shot is None:
                raise SatelliteError("the budget is used up", code="over_budget", where="login")
            return QueueRows(self._shot[1], now - self._shot[0], share=self.share)
        self.asked += 1
        self.questions.append(("queue", len(handles)))
        self._shot = now, self.rows
        return QueueRows(self.rows, 0.0, fresh=True, share=self.share)

    def accounting(
        self, satellite: object, wanted: Mapping[str, float], *, spare: bool = False
    ) -> AccountingRows:
        self.looks += 1
        now = self.clock()
        if not self._spend("accounting", spare):
            return AccountingRows({}, now - self._failed if self._failed else 1e9)
        self.asked += 1
        self.questions.append(("accounting", len(wanted)))
        if self.books is None:
            self._failed = now
            return AccountingRows({}, 0.0)
        return AccountingRows({job_id: (self.books_age, self.books.get(job_id)) for job_id in wanted}, 1e9)


@dataclass
class World:
    """A watcher with everything it looks at."""

    files: Files
    queue: Queue
    now: float
    watcher: Watcher

    def step(self, seconds: float = 0.2) -> None:
        """Let time pass and the watcher look; its questions are answered before this returns."""
        self.now += seconds
        self.watcher.step()
        deadline = time.monotonic() + PATIENCE
        while not self.watcher.idle and self.watcher._poller._pending:
            self.watcher.step()
            assert time.monotonic() < deadline

    def run(self, seconds: float, every: float = 0.2) -> None:
        for _ in range(round(seconds / every)):
            self.step(every)


@pytest.fixture
def world() -> World:
    files, queue = Files(), Queue(rows=None)
    made = World(files, queue, 1000.0, None)  # type: ignore[arg-type]
    made.watcher = Watcher(
        files,  # type: ignore[arg-type]
        queue,  # type: ignore[arg-type]
        operations_per_second=1000,
        clock=lambda: made.now,
        threaded=False,
    )
    queue.clock = lambda: made.now
    return made


def handle(number: int = 1) -> JobHandle:
    return JobHandle(str(number), f"/runs/{number}")


def events(watch: Watch) -> list[Event]:
    found = []
    while (event := watch.next(timeout=0.001)) is not None:
        found.append(event)
    return found


def text(found: Sequence[Event], name: str) -> bytes:
    return b"".join(event.data for event in found if isinstance(event, Output) and event.name == name)


STARTED = b"restart=0\nstarted=1\nhost=n1\n"
