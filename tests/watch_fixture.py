"""A watcher with a host of files, a queue that can fail, and a clock that only moves when told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.satellite.calls import FileData, FileRead, LeaseRenewal
from dagster_slurm_components.jobs.events import (
    Event,
    Output,
    Watch,
)
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.reconcile import Patience
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
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
            return FileData(request.path, False, 0, 0, request.offset, b"")
        data = found[request.offset : request.offset + request.limit]
        inode = self.inodes.get(request.path, 1)
        return FileData(request.path, True, len(found), inode, request.offset, data)


@dataclass
class Budget:
    """Two queries a minute and ten at once, as the host's file keeps them (``satellite.queries.spend``)."""

    clock: Callable[[], float] = lambda: 0.0
    refused: int = 0

    def __post_init__(self) -> None:
        self.tokens, self.filled = 10.0, 0.0

    def spend(self) -> None:
        now = self.clock()
        self.tokens, self.filled = min(10.0, self.tokens + (now - self.filled) * 2 / 60), now
        if self.tokens < 1:
            self.refused += 1
            raise SatelliteError("the budget of Slurm queries is used up", code="over_budget", where="login")
        self.tokens -= 1


@dataclass
class Queue:
    """A scheduler whose answers are set by the test, and whose queries have a budget."""

    rows: dict[str, QueueRow] | None = None
    books: dict[str, AccountingRow] | None = None
    error: Exception | None = None
    asked: int = 0
    questions: list[tuple[str, int]] = field(default_factory=list)
    name = "slurm"
    has_accounting = True
    first_query = 3.0
    patience = Patience()
    budget: Budget = field(default_factory=Budget)

    def queue(self, satellite: object, handles: Sequence[JobHandle]) -> Mapping[str, QueueRow] | None:
        self.budget.spend()
        self.asked += 1
        self.questions.append(("queue", len(handles)))
        if self.error:
            raise self.error
        return self.rows

    def accounting(
        self, satellite: object, handles: Sequence[JobHandle]
    ) -> Mapping[str, AccountingRow] | None:
        self.budget.spend()
        self.asked += 1
        self.questions.append(("accounting", len(handles)))
        asked = {handle.job_id for handle in handles}
        return None if self.books is None else {key: row for key, row in self.books.items() if key in asked}

    def query_interval(self, asked: int, *, waiting: bool) -> float:
        return SlurmScheduler("").query_interval(asked, waiting=waiting)


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
        deadline = time.monotonic() + 10
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
    queue.budget.clock = lambda: made.now
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
