"""A watcher with a host of files, a queue that can fail, and a clock that only moves when told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from dagster_slurm_components.hosts.calls import FileData, FileRead, LeaseRenewal
from dagster_slurm_components.jobs.cadence import TokenBucket, query_interval
from dagster_slurm_components.jobs.events import (
    Event,
    Text,
    Watch,
)
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.reconcile import Patience
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
class Queue:
    """A scheduler whose answers are set by the test."""

    rows: dict[str, QueueRow] | None = None
    books: dict[str, AccountingRow] | None = None
    error: Exception | None = None
    asked: int = 0
    questions: list[tuple[str, int]] = field(default_factory=list)
    name = "slurm"
    metered = True
    has_accounting = True
    first_query = 3.0
    patience = Patience()

    def queue(self, satellite: object, handles: Sequence[JobHandle]) -> Mapping[str, QueueRow] | None:
        self.asked += 1
        self.questions.append(("queue", len(handles)))
        if self.error:
            raise self.error
        return self.rows

    def accounting(
        self, satellite: object, handles: Sequence[JobHandle]
    ) -> Mapping[str, AccountingRow] | None:
        self.asked += 1
        self.questions.append(("accounting", len(handles)))
        asked = {handle.job_id for handle in handles}
        return None if self.books is None else {key: row for key, row in self.books.items() if key in asked}

    def query_interval(self, asked: int, *, waiting: bool) -> float:
        return query_interval(asked, waiting=waiting)


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
        questions = self.watcher._questions
        while not self.watcher.idle and (questions._queue or questions._accounting):
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
        budget=TokenBucket(2, 10),
        operations_per_second=1000,
        patience=Patience(),
        clock=lambda: made.now,
    )
    return made


def handle(number: int = 1) -> JobHandle:
    return JobHandle(str(number), f"/runs/{number}", f"token{number}")


def events(watch: Watch) -> list[Event]:
    found = []
    while (event := watch.next(timeout=0.001)) is not None:
        found.append(event)
    return found


def text(found: Sequence[Event], name: str) -> bytes:
    return b"".join(event.data for event in found if isinstance(event, Text) and event.name == name)


STARTED = b"restart=0\nstarted=1\nhost=n1\n"
