"""Runs whose process died, and jobs that no living run follows: what is decided about them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
from runs_fixture import alive, child_of, make, read

from dagster_slurm_components.jobs.lease import CANCEL_WANTED, ENDED, FOLLOWING, Attempt, Lease, LedgerRecord
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.pipes import runs as runs_module
from dagster_slurm_components.pipes.orphans import Act, judge
from dagster_slurm_components.pipes.records import WORKER, written
from dagster_slurm_components.pipes.runs import Finding, end_dead_runs, end_if_dead, remind_of_retries

STATUS = dg.DagsterRunStatus
NOW = 1_000_000.0
NOBODY = Owner("", "elsewhere", "", 1, "1-boot")


@pytest.fixture
def instance(memory_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """Asked as any other, and made faster."""
    return memory_instance


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
        assert self.judged(runs[status], state, owner) is act
        if act is Act.COLLECTED or state == CANCEL_WANTED:
            assert self.judged(runs[status], state, owner, again=True) is act
        else:
            assert self.judged(runs[status], state, owner, again=True) is Act.NOTHING

    @staticmethod
    def judged(run: dg.DagsterRun | None, state: str, owner: str, *, again: bool = False) -> Act:
        outcome = "COMPLETED" if state == ENDED else None
        renewed = NOW - (10_000 if owner == "silent" else 5)
        lease = Lease(epoch=1, state=state, digest="d", owner=NOBODY, renewed=renewed, outcome=outcome)
        attempt = Attempt(0, "/w/0", lease, LedgerRecord("t", "12", 6.0))
        return judge(attempt, run, owner_gone=owner == "dead", again=again, now=NOW)

    def test_what_a_newer_release_wrote_is_never_touched(self, runs: dict[str, dg.DagsterRun | None]) -> None:
        attempt = Attempt(0, "/w/0", Lease(newer=True), LedgerRecord("t", "12", 6.0))
        for run in runs.values():
            assert judge(attempt, run, owner_gone=True, again=False, now=NOW) is Act.NEWER

    @pytest.mark.parametrize(("silent", "act"), [(179, Act.NOTHING), (181, Act.CANCEL)])
    def test_a_process_that_is_just_ending_a_job_has_its_time(
        self, runs: dict[str, dg.DagsterRun | None], silent: float, act: Act
    ) -> None:
        lease = Lease(epoch=1, digest="d", owner=NOBODY, renewed=NOW - silent)
        attempt = Attempt(0, "/w/0", lease, LedgerRecord("t", "12", 6.0))
        assert judge(attempt, runs["CANCELED"], owner_gone=False, again=False, now=NOW) is act


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
        monkeypatch.setattr(runs_module, "will_be_retried", lambda instance, run: run.run_id not in known)
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
