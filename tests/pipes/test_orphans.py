"""Runs whose process died, and jobs that no living run follows: what is decided, and what is done about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from satellite_fixture import bundle

from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.calls import LeaseRequest, Process, SubmitRequest
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.jobs.lease import (
    CANCEL_WANTED,
    CANCELLED,
    COLLECTED,
    ENDED,
    FOLLOWING,
    Attempt,
    Lease,
    Note,
    Owner,
)
from dagster_slurm_components.jobs.lease_store import LeaseStore
from dagster_slurm_components.jobs.ledger import LedgerRecord
from dagster_slurm_components.jobs.schedulers import ProcessScheduler
from dagster_slurm_components.pipes import orphans
from dagster_slurm_components.pipes.orphans import (
    Act,
    Finding,
    Orphans,
    end_dead_runs,
    end_if_dead,
    judge,
    remind_of_retries,
)
from dagster_slurm_components.pipes.records import PROFILE, WORKER, written
from dagster_slurm_components.pipes.target import Target

STATUS = dg.DagsterRunStatus
NOW = 1_000_000.0
NOBODY = Owner("", "elsewhere", "", 1, "1-boot")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """One in memory: it is asked as any other, and made faster."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(scope="module")
def dead() -> Owner:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner.of("", process.pid)
    process.communicate(b"\n")
    return owner


def alive() -> Owner:
    return Owner.of("", os.getpid())


def make(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, owner: Owner | None = None, **more: object
) -> dg.DagsterRun:
    """Make a run, whose worker is that process."""
    run = create_run_for_test(instance, job_name="a", status=status, **more)  # type: ignore[arg-type]
    if owner is not None:
        tags = {PROFILE: "local", WORKER: written(replace(owner, run_id=run.run_id))}
        instance.add_run_tags(run.run_id, tags)
    return read(instance, run)


def read(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def child_of(run: dg.DagsterRun) -> dict[str, object]:
    return {"parent_run_id": run.run_id, "root_run_id": run.run_id}


class TestJudge:
    """The docstring's table, row by row."""

    @pytest.fixture
    def runs(self) -> dict[str, dg.DagsterRun | None]:
        # One of each state, also of those that only a run of the webserver's can be in.
        run = dg.DagsterRun("a", run_id="r1")
        return {"none": None, **{status.value: run._replace(status=status) for status in STATUS}}

    UNDER_WAY = ("QUEUED", "NOT_STARTED", "MANAGED", "STARTING", "STARTED", "CANCELING")

    @pytest.mark.parametrize(
        ("status", "state", "owner", "act"),
        [
            # Owner: dead, lives (gave a sign of life just now), silent (gave none for long).
            *[("none", state, "dead", Act.NOTHING) for state in (FOLLOWING, CANCEL_WANTED, ENDED)],
            *[
                (status, state, owner, Act.NOTHING)
                for status in UNDER_WAY
                for state in (FOLLOWING, CANCEL_WANTED, ENDED)
                for owner in ("dead", "lives", "silent")
            ],
            *[
                (status, state, "lives", Act.NOTHING)
                for status in ("SUCCESS", "CANCELED", "FAILURE")
                for state in (FOLLOWING, CANCEL_WANTED)
            ],
            *[
                (status, state, owner, act)
                for owner in ("dead", "silent")
                for status, state, act in [
                    ("CANCELED", FOLLOWING, Act.CANCEL),
                    ("CANCELED", CANCEL_WANTED, Act.CANCEL),
                    ("CANCELED", ENDED, Act.NOTHING),
                    ("SUCCESS", FOLLOWING, Act.CANCEL),
                    ("SUCCESS", CANCEL_WANTED, Act.CANCEL),
                    ("SUCCESS", ENDED, Act.COLLECTED),
                    ("FAILURE", FOLLOWING, Act.TELL),
                    ("FAILURE", CANCEL_WANTED, Act.CANCEL),
                    ("FAILURE", ENDED, Act.TELL),
                ]
            ],
            # What has ended is followed by nobody any more, however short that is ago.
            ("CANCELED", ENDED, "lives", Act.NOTHING),
            ("SUCCESS", ENDED, "lives", Act.COLLECTED),
            ("FAILURE", ENDED, "lives", Act.TELL),
        ],
    )
    def test_what_is_done_about_an_open_lease(
        self, runs: dict[str, dg.DagsterRun | None], status: str, state: str, owner: str, act: Act
    ) -> None:
        outcome = "COMPLETED" if state == ENDED else None
        renewed = NOW - (10_000 if owner == "silent" else 5)
        lease = Lease(epoch=1, state=state, digest="d", owner=NOBODY, renewed=renewed, outcome=outcome)
        attempt = Attempt(0, "/w/0", lease, LedgerRecord("t", "12", 6.0))
        assert judge(attempt, runs[status], owner_dead=owner == "dead", now=NOW) is act

    def test_what_a_newer_release_wrote_is_never_touched(self, runs: dict[str, dg.DagsterRun | None]) -> None:
        attempt = Attempt(0, "/w/0", Lease(newer=True), LedgerRecord("t", "12", 6.0))
        for run in runs.values():
            assert judge(attempt, run, owner_dead=True, now=NOW) is Act.NEWER

    @pytest.mark.parametrize(("silent", "act"), [(179, Act.NOTHING), (181, Act.CANCEL)])
    def test_a_process_that_is_just_ending_a_job_has_its_time(
        self, runs: dict[str, dg.DagsterRun | None], silent: float, act: Act
    ) -> None:
        lease = Lease(epoch=1, digest="d", owner=NOBODY, renewed=NOW - silent)
        attempt = Attempt(0, "/w/0", lease, LedgerRecord("t", "12", 6.0))
        assert judge(attempt, runs["CANCELED"], owner_dead=False, now=NOW) is act


class TestDeadRuns:
    def test_a_pass_changes_only_the_dead(self, instance: dg.DagsterInstance, dead: Owner) -> None:
        healthy = make(instance, STATUS.STARTED, alive())
        elsewhere = make(instance, STATUS.STARTED, replace(dead, node="elsewhere"))
        contained = make(instance, STATUS.STARTED, replace(dead, pid_namespace="pid:[1]"))
        unknown = make(instance, STATUS.STARTED)
        ended = make(instance, STATUS.SUCCESS, dead)
        starting = make(instance, STATUS.STARTING, dead)
        gone = make(instance, STATUS.STARTED, dead)
        cancelling = make(instance, STATUS.CANCELING, dead)
        found = {each.run_id for each in end_dead_runs(instance)}
        assert found == {gone.run_id, cancelling.run_id}
        left = [healthy, elsewhere, contained, unknown]
        assert [read(instance, run).status for run in left] == [STATUS.STARTED] * 4
        assert [read(instance, run).status for run in (ended, starting, gone, cancelling)] == [
            STATUS.SUCCESS,
            STATUS.STARTING,
            STATUS.FAILURE,
            STATUS.CANCELED,
        ]
        assert list(end_dead_runs(instance)) == []

    def test_a_run_that_ends_between_the_looks_is_left_alone(
        self, instance: dg.DagsterInstance, dead: Owner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = make(instance, STATUS.STARTED, dead)

        def ends(self: Owner) -> bool:
            event = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, run.job_name)
            instance.handle_run_event(run.run_id, event)
            return True

        monkeypatch.setattr(Owner, "known_dead", ends)
        assert end_if_dead(instance, run) is None
        assert read(instance, run).status is STATUS.SUCCESS

    def test_a_run_that_another_process_goes_on_with_is_left_alone(
        self, instance: dg.DagsterInstance, dead: Owner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As Dagster's run monitoring does, which resumes a run in a new worker."""
        run = make(instance, STATUS.STARTED, dead)

        def goes_on(self: Owner) -> bool:
            instance.add_run_tags(run.run_id, {WORKER: written(replace(alive(), run_id=run.run_id))})
            return True

        monkeypatch.setattr(Owner, "known_dead", goes_on)
        assert end_if_dead(instance, run) is None

    def test_a_retry_that_begins_with_its_parent_s_tags_is_not_taken_for_dead(
        self, instance: dg.DagsterInstance, dead: Owner
    ) -> None:
        parent = make(instance, STATUS.FAILURE, dead)
        retry = make(instance, STATUS.STARTED, tags=dict(parent.tags), **child_of(parent))
        assert list(end_dead_runs(instance)) == []
        assert read(instance, retry).status is STATUS.STARTED


PROMISED = {"dagster/will_retry": "true"}


class TestReminder:
    @pytest.fixture(autouse=True)
    def retried(self, monkeypatch: pytest.MonkeyPatch) -> set[str]:
        """The runs that Dagster will not retry, or has retried."""
        known: set[str] = set()
        monkeypatch.setattr(orphans, "will_be_retried", lambda instance, run: run.run_id not in known)
        return known

    def told(
        self, instance: dg.DagsterInstance, reminded: frozenset[str] = frozenset(), minutes: float = 1
    ) -> list[Finding]:
        now = datetime.now(timezone.utc)
        before = now + timedelta(minutes=minutes)
        return list(
            remind_of_retries(
                instance, updated_after=now - timedelta(days=1), updated_before=before, reminded=reminded
            )
        )

    def test_a_failure_that_the_daemon_missed_is_told_again_once_it_had_its_time(
        self, instance: dg.DagsterInstance, dead: Owner, retried: set[str]
    ) -> None:
        missed, done = (make(instance, STATUS.FAILURE, dead, tags=PROMISED) for _ in range(2))
        make(instance, STATUS.FAILURE, tags=PROMISED)  # without jobs
        make(instance, STATUS.FAILURE, dead, tags={"dagster/will_retry": "false"})
        make(instance, STATUS.STARTED, dead, tags=PROMISED)
        retried.add(done.run_id)
        assert self.told(instance, minutes=-1) == []
        assert [each.run_id for each in self.told(instance)] == [missed.run_id]
        assert len(instance.all_logs(missed.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)) == 1

    def test_each_is_told_once(self, instance: dg.DagsterInstance, dead: Owner) -> None:
        """D10: each event is news for every sensor of failures, and keeps its run in the window."""
        run = make(instance, STATUS.FAILURE, dead, tags=PROMISED)
        reminded: frozenset[str] = frozenset()
        for _ in range(4):
            reminded |= {each.key for each in self.told(instance, reminded)}
        assert len(instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)) == 1


@dataclass
class Folder:
    """A working folder with jobs that are plain processes."""

    instance: dg.DagsterInstance
    workdir: Path
    satellite: Satellite
    jobs: list[str]

    def orphans(self) -> Orphans:
        scheduler = ProcessScheduler(f"{self.workdir}/queue")
        place = Target(self.satellite, scheduler, None, str(self.workdir), self.satellite)  # type: ignore[arg-type]
        return Orphans(self.instance, place, "local")

    def look_after(self, told: frozenset[str] = frozenset()) -> list[Finding]:
        return list(self.orphans().look_after(told))

    def submit(self, run: dg.DagsterRun, owner: Owner, script: str = "exec sleep 300") -> Attempt:
        """Submit a job whose lease is a run's."""
        folder = f"{self.workdir}/runs/{run.run_id}/step"
        note = Note(profile="local", step="step")
        claim = LeaseRequest("d", "c", asdict(replace(owner, run_id=run.run_id)), note.written())
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
        deadline = time.monotonic() + 10
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
        folder.finish(folder.submit(run, dead))
        (found,) = folder.look_after()
        assert "no run collected its results" in found.text
        assert folder.lease(run).open

    def test_one_that_failed_after_its_run_did_is_nobody_s_business(
        self, instance: dg.DagsterInstance, folder: Folder, dead: Owner
    ) -> None:
        run = make(instance, STATUS.FAILURE)
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
        folder.submit(run, dead)
        if promised:
            monkeypatch.setattr(orphans, "will_be_retried", lambda instance, run: True)
        else:
            make(instance, STATUS.NOT_STARTED, **child_of(run))
        assert folder.look_after() == []

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
