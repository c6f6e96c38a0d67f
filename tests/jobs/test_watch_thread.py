"""The watcher's thread: what goes wrong there is told to who waits for it, and ends nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from waiting import PATIENCE
from watch_fixture import STARTED, World, handle

from dagster_slurm_components.errors import (
    HostRefusedError,
)
from dagster_slurm_components.jobs.events import (
    Ended,
    Event,
    Watch,
    WatchFailed,
)
from dagster_slurm_components.jobs.watch import Watcher


def broken(error: Exception) -> Callable[..., object]:
    def fail(*args: object, **more: object) -> object:
        raise error

    return fail


class TestThread:
    """D9: one unexpected exception left every step of the process waiting for ever."""

    @pytest.fixture
    def thread(self, world: World) -> Iterator[Watcher]:
        made = world.watcher
        made.clock, made.threaded = time.monotonic, True
        yield made
        made._wake.set()
        if made._thread is not None:
            made._thread.join(PATIENCE)
        assert made._thread is None, "it ends when its jobs have"

    def until(self, watch: Watch, kind: type[Event]) -> Event:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            event = watch.next(timeout=1)
            if isinstance(event, kind):
                return event
        raise AssertionError(f"no {kind.__name__}")

    def test_any_exception_is_told_to_all_who_wait_and_the_next_job_is_watched(
        self, world: World, thread: Watcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong = ValueError("a status file that nobody expected")
        for number in (1, 2):
            world.files.append(f"/runs/{number}/status", STARTED)
        with monkeypatch.context() as patch:
            patch.setattr("dagster_slurm_components.jobs.events.parse_status", broken(wrong))
            watches = [thread.watch(handle(1)), thread.watch(handle(2))]
            for watch in watches:
                told = self.until(watch, WatchFailed)
                assert isinstance(told, WatchFailed)
                assert told.error is wrong
                assert watch.closed
        world.files.append("/runs/3/status", STARTED + b"exit=0\n")
        ended = self.until(thread.watch(handle(3)), Ended)
        assert isinstance(ended, Ended)
        assert ended.observation.state == "COMPLETED"

    def test_the_next_job_is_watched_after_the_thread_has_ended_too(
        self, world: World, thread: Watcher
    ) -> None:
        for number in (1, 2):
            world.files.append(f"/runs/{number}/status", STARTED + b"exit=0\n")
            self.until(thread.watch(handle(number)), Ended)
            running = thread._thread
            if running is not None:
                running.join(PATIENCE)
            assert thread._thread is None

    def test_a_fault_that_stays_is_told_to_each_job(self, world: World, thread: Watcher) -> None:
        world.files.error = RuntimeError("a bug")
        for number in (1, 2, 3):
            told = self.until(thread.watch(handle(number)), WatchFailed)
            assert isinstance(told, WatchFailed)
            assert str(told.error) == "a bug"
        assert sum(each.name == "dagster-slurm-watcher" for each in threading.enumerate()) <= 1

    def test_the_host_s_no_is_told_to_each_job(self, world: World, thread: Watcher) -> None:
        world.files.error = HostRefusedError("the host key has changed", where="login")
        watches = [thread.watch(handle(number)) for number in (1, 2)]
        for watch in watches:
            assert isinstance(self.until(watch, WatchFailed), WatchFailed)
        world.files.error = None
        world.files.append("/runs/3/status", STARTED + b"exit=0\n")
        self.until(thread.watch(handle(3)), Ended)
