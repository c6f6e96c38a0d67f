"""What is done about jobs that no living run follows: real processes, and real leases of theirs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import dagster as dg
import pytest
from runs_fixture import age, alive, child_of, make
from satellite_fixture import bundle
from waiting import PATIENCE

from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.satellite.calls import LeaseRequest, Process, SubmitRequest
from dagster_slurm_components.jobs.lease import (
    CANCEL_WANTED,
    CANCELLED,
    COLLECTED,
    ENDED,
    FOLLOWING,
    Attempt,
    Lease,
    LeaseStore,
    Note,
)
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.jobs.schedulers import ProcessScheduler
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.pipes import orphans
from dagster_slurm_components.pipes.orphans import Orphans
from dagster_slurm_components.pipes.runs import Finding

STATUS = dg.DagsterRunStatus


@pytest.fixture
def instance(memory_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """Asked as any other, and made faster."""
    return memory_instance


@dataclass
class Folder:
    """A working folder with jobs that are plain processes."""

    instance: dg.DagsterInstance
    workdir: Path
    satellite: Satellite
    jobs: list[str]

    def orphans(self) -> Orphans:
        scheduler = ProcessScheduler(f"{self.workdir}/queue")
        place = Target(self.satellite, scheduler, None, str(self.workdir))  # type: ignore[arg-type]
        return Orphans(self.instance, place, "local")

    def look_after(self, told: frozenset[str] = frozenset()) -> list[Finding]:
        orphans = self.orphans()
        return list(orphans.look_after(*orphans.place.leases.open(), told))

    def submit(self, run: dg.DagsterRun, owner: Owner, script: str = "exec sleep 300") -> Attempt:
        """Submit a job whose lease is a run's."""
        folder = f"{self.workdir}/runs/{run.run_id}/step"
        note = Note(profile="local", step="step")
        claim = LeaseRequest("d", "c", asdict(replace(owner, run_id=run.run_id)), asdict(note))
        request = SubmitRequest(
            run_dir=f"{folder}/0",
            workdir=str(self.workdir),
            token=run.run_id,
            mode="process",
            argv=("/bin/sh", "job.sh"),
            claim=claim,
        )
        self.jobs.append(self.satellite.submit(request, bundle({"job.sh": script})).job_id or "")
        return self.attempt(run)

    def attempt(self, run: dg.DagsterRun) -> Attempt:
        (found,) = LeaseStore(self.satellite, str(self.workdir)).attempts(
            f"{self.workdir}/runs/{run.run_id}/step"
        )
        return found

    def lease(self, run: dg.DagsterRun) -> Lease:
        return self.attempt(run).lease

    def close(self, attempt: Attempt, state: str, outcome: str | None = None) -> None:
        leases = LeaseStore(self.satellite, str(self.workdir))
        assert leases.change(attempt.run_dir, attempt.lease.epoch, state, outcome=outcome)

    def let_pass(self, attempt: Attempt, seconds: float) -> None:
        """Let time pass since the last sign of life."""
        file = Path(attempt.run_dir, "lease")
        lease = json.loads(file.read_text())
        file.write_text(json.dumps({**lease, "renewed": lease["renewed"] - seconds}))

    def lives(self, attempt: Attempt) -> bool:
        (lives,) = self.satellite.alive([Process.parse(attempt.ledger.job_id or "")])
        return lives

    def end(self, attempt: Attempt) -> None:
        """Let a job's process end, and see it gone."""
        process = Process.parse(attempt.ledger.job_id or "")
        self.satellite.kill(process, "KILL")
        deadline = time.monotonic() + PATIENCE
        while self.lives(attempt):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def finish(self, attempt: Attempt, code: int = 0) -> None:
        """Let a job end as its own status file tells."""
        self.end(attempt)
        Path(attempt.run_dir, "status").write_text(f"restart=0\nstarted=6\nended=9\nexit={code}\n")


@pytest.fixture
def folder(instance: dg.DagsterInstance, tmp_path: Path) -> Iterator[Folder]:
    made = Folder(instance, tmp_path / "work dir", Satellite(InProcessHost()), [])
    yield made
    for job in made.jobs:
        made.satellite.kill(Process.parse(job), "KILL")


class TestLookAfter:
    def test_a_job_of_a_cancelled_run_is_cancelled_and_its_end_is_confirmed(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner
    ) -> None:
        run = make(instance, STATUS.CANCELED)
        attempt = folder.submit(run, dead)
        (found,) = folder.look_after()
        assert (found.run_id, "Cancelled the job" in found.text) == (run.run_id, True)
        lease = folder.lease(run)
        assert (lease.state, lease.epoch) == (CANCEL_WANTED, 2), "who still follows it is refused from now on"
        assert lease.owner == Owner.of(run.run_id, os.getpid())
        folder.end(attempt)
        assert folder.look_after() == [], "it was asked for just now"
        folder.let_pass(attempt, 200)
        assert folder.look_after() == []
        lease = folder.lease(run)
        assert (lease.state, lease.open) == (CANCELLED, False)
        assert folder.satellite.open_leases(str(folder.workdir))[0] == []

    def test_cancelling_that_was_written_down_and_not_done_is_done(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner
    ) -> None:
        """D4: the host was lost between the two, and the job ran on for ever."""
        run = make(instance, STATUS.FAILURE)
        attempt = folder.submit(run, dead)
        folder.close(attempt, CANCEL_WANTED)
        assert len(folder.look_after()) == 1
        folder.finish(attempt, 143)
        assert folder.look_after() == []
        assert folder.lease(run).state == CANCELLED

    def test_a_host_that_is_lost_in_between_is_asked_again(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = make(instance, STATUS.CANCELED)
        attempt = folder.submit(run, dead)
        call = InProcessHost.call

        def lost(self: InProcessHost, op: str, *args: object, **more: object) -> Reply:
            if op == "kill":
                raise HostUnreachableError("reset", where="local")
            return call(self, op, *args, **more)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(InProcessHost, "call", lost)
            with pytest.raises(HostUnreachableError):
                folder.look_after()
        assert folder.lease(run).state == CANCEL_WANTED
        assert folder.lives(attempt)
        folder.let_pass(attempt, 200)
        assert len(folder.look_after()) == 1

    def test_a_job_whose_result_nobody_asked_for_is_cancelled_after_its_run_has_succeeded(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner
    ) -> None:
        folder.submit(make(instance, STATUS.SUCCESS), dead)
        (found,) = folder.look_after()
        assert "which no run follows" in found.text

    def test_what_a_succeeded_run_had_but_could_not_note_is_noted(
        self, instance: dg.DagsterInstance, folder: Folder
    ) -> None:
        run = make(instance, STATUS.SUCCESS)
        attempt = folder.submit(run, alive(), "true")
        folder.close(attempt, ENDED, "COMPLETED")
        assert folder.look_after() == []
        assert folder.lease(run).state == COLLECTED

    def test_a_submission_that_made_no_job_is_closed(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner
    ) -> None:
        run = make(instance, STATUS.CANCELED)
        attempt = folder.submit(run, dead)
        folder.end(attempt)
        Path(attempt.run_dir, "ledger").write_text(f"token={run.run_id}\nintent=5\n")
        assert folder.look_after() == []
        assert folder.lease(run).state == CANCELLED

    def test_who_took_a_job_over_during_the_look_keeps_it(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """D3: the sensor cancelled the job of a healthy re-execution."""
        run = make(instance, STATUS.CANCELED)
        attempt = folder.submit(run, dead)
        retry = make(instance, STATUS.STARTED, **child_of(run))
        listed = LeaseStore.open

        def taken_meanwhile(self: LeaseStore) -> object:
            found = listed(self)
            assert self.take(attempt, Owner.of(retry.run_id, os.getpid()))
            return found

        monkeypatch.setattr(LeaseStore, "open", taken_meanwhile)
        assert folder.look_after() == []
        assert folder.lives(attempt)
        assert folder.lease(run).state == FOLLOWING

    @pytest.mark.parametrize("status", [STATUS.STARTED, STATUS.NOT_STARTED])
    def test_a_job_that_a_re_execution_follows_is_left_alone(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner, status: dg.DagsterRunStatus
    ) -> None:
        """D3: the parent is cancelled, and its child lives."""
        run = make(instance, STATUS.CANCELED)
        attempt = folder.submit(run, dead)
        retry = make(instance, status, **child_of(run))
        leases = LeaseStore(folder.satellite, str(folder.workdir))
        assert leases.take(attempt, replace(dead, run_id=retry.run_id))
        assert folder.look_after() == []
        assert folder.lives(attempt)

    def test_another_dagster_s_jobs_are_left_alone(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner
    ) -> None:
        with dg.DagsterInstance.ephemeral() as other:
            run = make(other, STATUS.CANCELED)
            attempt = folder.submit(run, dead)
        assert folder.look_after() == []
        assert folder.lives(attempt)
        assert folder.lease(run).epoch == 1

    def test_what_a_failed_run_left_is_told_here_and_in_its_own_log_once(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner
    ) -> None:
        run = make(instance, STATUS.FAILURE)
        age(instance, run, 100)
        attempt = folder.submit(run, dead)
        (found,) = folder.look_after()
        assert f"dg-slurm attach {run.run_id}" in found.text
        assert folder.lives(attempt), "whether its work is wanted is for a person to say"
        assert folder.lease(run).epoch == 1
        events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        assert [event.dagster_event and event.dagster_event.message for event in events] == [found.text]
        assert folder.look_after(frozenset({found.key})) == []
        assert len(instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)) == 1

    def test_a_job_that_did_its_work_after_its_run_failed_is_told(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner
    ) -> None:
        run = make(instance, STATUS.FAILURE)
        age(instance, run, 100)
        folder.finish(folder.submit(run, dead))
        (found,) = folder.look_after()
        assert "no run collected its results" in found.text
        assert folder.lease(run).open

    def test_one_that_failed_after_its_run_did_is_nobody_s_business(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner
    ) -> None:
        run = make(instance, STATUS.FAILURE)
        age(instance, run, 100)
        folder.finish(folder.submit(run, dead), 3)
        assert folder.look_after() == []
        lease = folder.lease(run)
        assert (lease.state, lease.outcome, lease.open) == (ENDED, "FAILED", False)

    @pytest.mark.parametrize("promised", [True, False])
    def test_a_failed_run_hands_its_jobs_on_to_its_retry(
        self,
        instance: dg.DagsterInstance,
        folder: Folder,
        dead: Owner,
        monkeypatch: pytest.MonkeyPatch,
        promised: bool,
    ) -> None:
        """Dagster is about to retry it, or a retry is under way and has not come to this step."""
        run = make(instance, STATUS.FAILURE)
        age(instance, run, 100)
        folder.submit(run, dead)
        if promised:
            monkeypatch.setattr(orphans, "will_be_retried", lambda instance, run: True)
        else:
            make(instance, STATUS.NOT_STARTED, **child_of(run))
        assert folder.look_after() == []

    @pytest.mark.parametrize(("seconds", "told"), [(10, False), (100, False), (1000, True)])
    def test_dagster_s_daemon_has_its_time_to_retry_and_a_promise_is_not_waited_for_without_end(
        self,
        instance: dg.DagsterInstance,
        folder: Folder,
        dead: Owner,
        monkeypatch: pytest.MonkeyPatch,
        seconds: float,
        told: bool,
    ) -> None:
        run = make(instance, STATUS.FAILURE)
        folder.submit(run, dead)
        age(instance, run, seconds)
        monkeypatch.setattr(orphans, "will_be_retried", lambda instance, run: seconds > 60)
        assert len(folder.look_after()) == told

    def test_a_healthy_run_s_job_is_never_touched(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner
    ) -> None:
        run = make(instance, STATUS.STARTED)
        attempt = folder.submit(run, dead)
        assert folder.look_after() == []
        assert folder.lives(attempt)

    @pytest.mark.parametrize("text", ['{"version": 2, "holder": "somebody"}', "torn"])
    def test_a_lease_that_can_not_be_judged_is_told_once_and_hides_no_other(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner, text: str
    ) -> None:
        bad, run = (make(instance, STATUS.CANCELED) for _ in range(2))
        attempt = folder.submit(bad, dead)
        Path(attempt.run_dir, "lease").write_text(text)
        folder.submit(run, dead)
        told, cancelled = folder.look_after()
        assert (told.run_id, attempt.run_dir in told.text) == ("", True)
        assert cancelled.run_id == run.run_id
        assert Path(attempt.run_dir, "lease").read_text() == text
        assert folder.lives(attempt)
        assert attempt.run_dir not in str(folder.look_after(frozenset({told.key})))

    def test_where_all_is_well_a_look_is_one_call(
        self, instance: dg.DagsterInstance, folder: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(3):
            folder.submit(make(instance, STATUS.STARTED), alive())
        calls: list[str] = []
        call = InProcessHost.call

        def counted(self: InProcessHost, op: str, *args: object, **more: object) -> Reply:
            calls.append(op)
            return call(self, op, *args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(InProcessHost, "call", counted)
        assert folder.look_after() == []
        assert calls == ["open_leases"]
