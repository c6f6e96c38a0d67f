"""Who follows a job gives signs of life as it reads, and hears when it has no say any more."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from watch_fixture import STARTED, World, events, handle

from dagster_slurm_components.errors import (
    HostUnreachableError,
)
from dagster_slurm_components.hosts.satellite.calls import LeaseRenewal
from dagster_slurm_components.jobs.events import (
    STDOUT,
    LeaseChanged,
    Watch,
)
from dagster_slurm_components.jobs.lease import OutputPosition


class TestLease:
    """Who follows a job gives signs of life as it reads, and hears when it has no say any more."""

    @pytest.fixture
    def watch(self, world: World) -> Watch:
        world.files.append("/runs/1/status", STARTED)
        return world.watcher.watch(handle(), epoch=3)

    def test_it_is_renewed_at_its_pace_in_the_calls_that_read(self, world: World, watch: Watch) -> None:
        world.run(20)
        assert 8 <= len(world.files.renewals) <= 10, "each two seconds"
        assert set(world.files.renewals) == {LeaseRenewal("/runs/1", 3)}
        assert world.files.calls <= 100, "no call of its own"
        assert not any(isinstance(event, LeaseChanged) for event in events(watch))

    def test_one_that_is_only_watched_is_not_renewed(self, world: World) -> None:
        world.files.append("/runs/1/status", STARTED)
        world.watcher.watch(handle())
        world.run(20)
        assert world.files.renewals == []

    def test_of_many_jobs_all_that_are_due_are_renewed_in_one_call(self, world: World) -> None:
        for number in range(100):
            world.files.append(f"/runs/{number}/status", STARTED)
            world.watcher.watch(handle(number), epoch=number + 1)
        before = world.files.calls
        world.step(5)
        assert world.files.renewals == [LeaseRenewal(f"/runs/{number}", number + 1) for number in range(100)]
        assert world.files.calls == before + 1

    def test_what_a_person_has_seen_is_written_once(self, world: World, watch: Watch) -> None:
        seen = OutputPosition({STDOUT: 5}, {STDOUT: 1})
        watch.shown = seen
        world.run(10)
        shown = [each.shown for each in world.files.renewals]
        assert shown[0] == asdict(seen)
        assert shown[1:] == [None] * (len(shown) - 1)
        watch.shown = OutputPosition({STDOUT: 9}, {STDOUT: 1})
        world.run(4)
        assert world.files.renewals[len(shown)].shown == {
            "offsets": {STDOUT: 9},
            "inodes": {STDOUT: 1},
        }

    def test_what_could_not_be_written_is_written_when_the_host_is_back(
        self, world: World, watch: Watch
    ) -> None:
        watch.shown = OutputPosition({STDOUT: 5}, {})
        world.files.error = HostUnreachableError("connection reset", where="login")
        world.run(60, every=5)
        assert world.files.renewals == []
        world.files.error = None
        world.run(60, every=5)
        assert world.files.renewals[0].shown == {"offsets": {STDOUT: 5}, "inodes": {}}

    @pytest.mark.parametrize(
        ("lease", "told"),
        [
            ((4, "following"), LeaseChanged(4, "following")),
            ((3, "cancel wanted"), LeaseChanged(3, "cancel wanted")),
            ((4, "cancel wanted"), LeaseChanged(4, "cancel wanted")),
            ((0, ""), LeaseChanged(0, "")),
        ],
        ids=["taken over", "to be cancelled", "both", "gone"],
    )
    def test_a_change_by_somebody_else_is_told(
        self, world: World, watch: Watch, lease: tuple[int, str], told: LeaseChanged
    ) -> None:
        world.run(5)
        assert not any(isinstance(event, LeaseChanged) for event in events(watch))
        world.files.leases["/runs/1"] = lease
        world.run(2.2)
        assert [event for event in events(watch) if isinstance(event, LeaseChanged)] == [told]
        assert not watch.closed, "who follows it decides"

    def test_a_state_is_told_once(self, world: World, watch: Watch) -> None:
        world.files.leases["/runs/1"] = (3, "cancel wanted")
        world.run(20)
        assert [event for event in events(watch) if isinstance(event, LeaseChanged)] == [
            LeaseChanged(3, "cancel wanted")
        ]
