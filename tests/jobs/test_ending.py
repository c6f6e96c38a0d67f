"""Ending a job: its lease says so first, then it is cancelled, and its end is confirmed. With real processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
from satellite_fixture import bundle
from waiting import PATIENCE

from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.satellite.calls import LeaseRequest, Process, SubmitRequest
from dagster_slurm_components.jobs import ending
from dagster_slurm_components.jobs.ending import LeaseLostError, NotEndedError, end_attempt, end_job
from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.lease import CANCEL_WANTED, CANCELLED, COLLECTED, ENDED, FOLLOWING, Attempt
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.jobs.reconcile import Evidence, Observation
from dagster_slurm_components.jobs.schedulers import ProcessScheduler
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.jobs.watch import Watcher
from dagster_slurm_components.slurm.states import Phase

JOB = """
printf 'restart=0\\nstarted=1\\nhost=%s\\n' "$(uname -n)" >status
trap 'printf "signal=TERM\\nended=2\\nexit=143\\n" >>status; exit 143' TERM
sleep 300 &
wait
"""
OURS = Owner.of("r1", os.getpid())
THEIRS = replace(OURS, run_id="r2")


@dataclass
class World:
    """A working folder with one job, and who ends it."""

    place: Target
    workdir: str
    told: list[str]

    @property
    def run_dir(self) -> str:
        return f"{self.workdir}/runs/r/step/0"

    def submit(self) -> Attempt:
        claim = LeaseRequest("d", "c", asdict(THEIRS), {"step": "step"})
        request = SubmitRequest(
            self.run_dir, self.workdir, "t0", "process", ("/bin/sh", "job.sh"), claim=claim
        )
        self.place.satellite.submit(request, bundle({"job.sh": JOB}))
        deadline = time.monotonic() + PATIENCE
        while not Path(self.run_dir, "status").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self.attempt()

    def attempt(self) -> Attempt:
        (found,) = self.place.leases.attempts(f"{self.workdir}/runs/r/step")
        return found

    def end(self, attempt: Attempt) -> bool:
        return end_attempt(self.place, attempt, OURS, "step-t0", tell=self.told.append, sleep=time.sleep)

    def lives(self, attempt: Attempt) -> bool:
        (lives,) = self.place.satellite.alive([Process.parse(attempt.ledger.job_id or "")])
        return lives


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    satellite, workdir = Satellite(InProcessHost()), str(tmp_path / "work dir")
    scheduler = ProcessScheduler(f"{workdir}/queue")
    watcher = Watcher(satellite, scheduler, operations_per_second=1000)
    made = World(Target(satellite, scheduler, watcher, workdir), workdir, [])
    yield made
    for attempt in made.place.leases.attempts(f"{workdir}/runs/r/step"):
        if attempt.ledger.job_id:
            satellite.kill(Process.parse(attempt.ledger.job_id), "KILL")


def handle(attempt: Attempt) -> JobHandle:
    return JobHandle(attempt.ledger.job_id or "", attempt.run_dir)


def ended(state: str) -> Ended:
    return Ended(Observation(state=state, phase=Phase.TERMINAL), Evidence())


class TestAttempt:
    """An attempt of somebody else that has to be over before anything else is submitted."""

    def test_a_live_job_is_taken_over_cancelled_and_seen_to_end(self, world: World) -> None:
        attempt = world.submit()
        assert world.end(attempt)
        assert not world.lives(attempt)
        lease = world.attempt().lease
        assert (lease.state, lease.epoch, lease.owner, lease.open) == (CANCELLED, 2, OURS, False)
        assert lease.outcome == "CANCELLED"
        assert "is cancelled before another one is submitted" in world.told[0]

    @pytest.mark.parametrize("state", [FOLLOWING, COLLECTED])
    def test_one_that_somebody_changed_meanwhile_is_left_alone(self, world: World, state: str) -> None:
        attempt = world.submit()
        if state == FOLLOWING:
            assert world.place.leases.take(attempt, replace(OURS, run_id="r3"))
        else:
            assert world.place.leases.change(attempt.run_dir, 1, ENDED, outcome="COMPLETED")
            assert world.place.leases.change(attempt.run_dir, 1, COLLECTED)
        before = world.attempt().lease
        assert world.end(attempt) is False
        assert world.attempt().lease == before
        assert world.lives(attempt)

    def test_what_has_ended_is_only_closed(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        attempt = world.submit()
        assert world.place.leases.change(attempt.run_dir, 1, ENDED, outcome="COMPLETED")
        monkeypatch.setattr(ending, "cancel", pytest.fail)
        assert world.end(world.attempt())
        assert world.attempt().lease.state == CANCELLED

    def test_a_submission_that_made_no_job_is_only_closed(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attempt = world.submit()
        world.place.satellite.kill(Process.parse(attempt.ledger.job_id or ""), "KILL")
        Path(attempt.run_dir, "ledger").write_text("token=t0\nintent=5\n")
        monkeypatch.setattr(ending, "cancel", pytest.fail)
        assert world.end(world.attempt())
        assert (world.attempt().lease.state, world.told) == (CANCELLED, [])

    def test_a_job_that_does_not_end_is_told_and_nothing_else_is_submitted(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attempt = world.submit()
        monkeypatch.setattr(ending, "end_job", lambda *args, patience: None)
        with pytest.raises(NotEndedError, match="does not end"):
            world.end(attempt)
        assert world.attempt().lease.state == CANCEL_WANTED, "whoever comes next goes on with it"


class TestOwnJob:
    def test_it_is_written_down_before_it_is_done(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """D4: recorded as ended before it was cancelled, and the host was lost in between."""
        attempt = world.submit()

        def lost(*args: object, **more: object) -> None:
            assert world.attempt().lease.state == CANCEL_WANTED
            raise HostUnreachableError("reset", where="local")

        monkeypatch.setattr(ending, "cancel", lost)
        with pytest.raises(HostUnreachableError):
            end_job(world.place, handle(attempt), 1, pytest.fail)
        lease = world.attempt().lease
        assert (lease.state, lease.outcome, lease.open) == (CANCEL_WANTED, None, True)

    def test_another_s_job_is_not_cancelled(self, world: World) -> None:
        attempt = world.submit()
        assert world.place.leases.take(attempt, OURS)
        with pytest.raises(LeaseLostError, match="somebody else"):
            end_job(world.place, handle(attempt), 1, pytest.fail)
        assert world.lives(attempt)
        assert world.attempt().lease.state == FOLLOWING

    @pytest.mark.parametrize(
        ("ends", "forced", "state"),
        [
            ([ended("CANCELLED")], [False], CANCELLED),
            ([None, ended("FAILED")], [False, True], CANCELLED),
            ([None, None], [False, True], CANCEL_WANTED),
        ],
        ids=["at once", "only by force", "not at all"],
    )
    def test_one_that_does_not_heed_is_forced_and_its_end_is_confirmed(
        self,
        world: World,
        monkeypatch: pytest.MonkeyPatch,
        ends: list[Ended | None],
        forced: list[bool],
        state: str,
    ) -> None:
        attempt = world.submit()
        asked: list[bool] = []

        def note(*args: object, force: bool = False) -> None:
            asked.append(force)

        monkeypatch.setattr(ending, "cancel", note)
        left = iter(ends)
        found = end_job(world.place, handle(attempt), 1, lambda seconds: next(left))
        assert (found, asked) == (ends[-1], forced)
        lease = world.attempt().lease
        assert (lease.state, lease.outcome) == (state, found and found.observation.state)
