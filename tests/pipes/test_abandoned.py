"""Which job of an interrupted launch the next one may take up: only the one that can be meant."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pytest
from dagster._core.code_pointer import FileCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from dagster_slurm_components.jobs.lease import Attempt, Lease, LedgerRecord, Note
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.jobs.takeover import Claim
from dagster_slurm_components.pipes import abandoned
from dagster_slurm_components.pipes.claim import JobCall
from dagster_slurm_components.pipes.records import PROFILE
from dagster_slurm_components.pipes.step import Step

CODE = JobPythonOrigin("job", RepositoryPythonOrigin("python", FileCodePointer("defs.py", "defs", "/p")))
ASSET, RAW = dg.AssetKey("a"), dg.AssetKey("raw")
STATUS = dg.DagsterRunStatus


@dataclass
class World:
    """Runs of one Dagster, jobs that are open on a host, and a launch that is about to submit one."""

    instance: dg.DagsterInstance
    attempts: list[Attempt] = field(default_factory=list)
    asked: int = 0

    def launched(self, run_id: str, **more: Any) -> dg.DagsterRun:
        """A run of `dg launch` that began, and by default failed."""
        values = {"status": STATUS.FAILURE, "tags": {PROFILE: "night"}, "job_code_origin": CODE, **more}
        status = values.pop("status")
        run = self.instance.add_run(
            dg.DagsterRun(job_name="job", run_id=run_id, status=STATUS.STARTED, **values)
        )
        self.instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", "job"), run_id)
        if status is STATUS.FAILURE:
            self.instance.report_run_failed(run)
        return run

    def left(self, run_id: str, *, root: str = "", where: str = "a/0", **more: Any) -> None:
        """A job that a run left behind; with other words of its lease."""
        owner = Owner(run_id, "gone", "", 1, "")
        values = {"epoch": 1, "state": "following", "digest": "same", "owner": owner, **more}
        run_dir = f"/w/runs/{root or run_id}/{where}"
        self.attempts.append(Attempt(0, run_dir, Lease(**values), LedgerRecord("t", "17", 1.0)))

    def call(self) -> JobCall:
        run = self.launched("new", status=STATUS.STARTED)
        specs = {ASSET: dg.AssetSpec(ASSET, deps=[RAW])}
        context = SimpleNamespace(
            log=logging.getLogger("step"),
            instance=self.instance,
            has_assets_def=True,
            assets_def=SimpleNamespace(specs_by_key=specs),
            selected_asset_keys={ASSET},
        )
        owner = Owner("new", "here", "", 2, "")
        step = Step(cast(Any, context), run, "new", "new", "a", None, owner, False, {})
        profile = SimpleNamespace(profile=SimpleNamespace(name="night"))
        call = JobCall(step, cast(Any, profile), 0, {})
        call.__dict__["digest"] = "same"
        call.place = cast(Any, SimpleNamespace(workdir="/w", leases=SimpleNamespace(open=self.open)))
        return call

    def open(self) -> tuple[list[Attempt], float]:
        self.asked += 1
        return self.attempts, 0.0

    def taken(self) -> str | None:
        """Return whose job the launch takes up."""
        call = self.call()
        claim = abandoned.claim_abandoned(call, call.first_claim())
        return claim.identity.run_id if claim else None


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    caplog.set_level(logging.INFO, "step")
    monkeypatch.setattr(abandoned, "_LEFT", {})
    monkeypatch.setattr(abandoned, "keeps_runs", lambda instance: True)

    def claimed(call: JobCall, first: Claim) -> Claim:
        return replace(first, adopted=True)

    monkeypatch.setattr(abandoned, "claim_after_others", claimed)
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(instance)


@pytest.mark.parametrize(
    "lease", [{}, {"state": "ended", "outcome": "COMPLETED"}], ids=["it goes on", "it has ended well"]
)
def test_the_job_of_the_same_call_is_taken_up(
    world: World, lease: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    world.launched("old")
    world.left("old", **lease)
    assert world.taken() == "old"
    assert "Job 17, which the interrupted run old left behind, has the same content" in caplog.text


def test_a_job_that_was_taken_up_before_stays_in_the_folder_of_its_first_run(world: World) -> None:
    world.launched("old")
    world.launched("second")
    world.left("second", root="old")
    assert world.taken() == "old"


@pytest.mark.parametrize(
    "more",
    [
        {"where": "b/0"},
        {"where": "a/monday/0"},
        {"where": "a/call=1/0"},
        {"state": "cancel wanted"},
        {"state": "collected"},
        {"state": "left"},
        {"state": "ended", "outcome": "FAILED"},
        {"note": Note(elements="0-3")},
        {"newer": True, "owner": None},
    ],
    ids=str,
)
def test_what_is_not_the_same_call_or_over_is_passed_over(
    world: World, more: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    world.launched("old")
    world.left("old", **more)
    assert world.taken() is None
    assert "17" not in caplog.text


@pytest.mark.parametrize("status", [STATUS.STARTED, STATUS.SUCCESS])
def test_the_job_of_a_run_that_may_live_or_did_well_is_its_own(world: World, status: STATUS) -> None:
    world.launched("old", status=status)
    world.left("old")
    assert world.taken() is None


def test_the_job_of_another_project_s_run_is_its_own_though_it_has_the_same_content(world: World) -> None:
    theirs = RepositoryPythonOrigin("python", FileCodePointer("theirs.py", "defs", "/p"))
    world.launched("old", job_code_origin=JobPythonOrigin("job", theirs))
    world.left("old")
    assert world.taken() is None


def test_the_job_of_a_run_that_another_goes_on_with_is_left_to_that(world: World) -> None:
    world.launched("old")
    tags = {PROFILE: "night", "dagster/parent_run_id": "old"}
    world.launched("attached", status=STATUS.STARTED, tags=tags, parent_run_id="old", root_run_id="old")
    world.left("old")
    assert world.taken() is None


@pytest.mark.parametrize("more", [{"job_code_origin": None}, {"tags": {PROFILE: "day"}}], ids=str)
def test_runs_of_others_and_of_another_profile_cost_no_call(world: World, more: dict[str, Any]) -> None:
    world.launched("old", **more)
    world.left("old")
    assert world.taken() is None
    assert world.asked == 0


def test_a_run_of_another_dagster_is_not_known(world: World) -> None:
    world.launched("old")
    world.left("theirs")
    assert world.taken() is None


@pytest.mark.parametrize("by_itself", [True, False])
def test_other_content_and_newer_inputs_are_told(
    world: World, by_itself: bool, caplog: pytest.LogCaptureFixture
) -> None:
    world.launched("old")
    world.left("old", **({"digest": "other"} if by_itself else {}))
    if not by_itself:
        world.instance.report_runless_asset_event(dg.AssetMaterialization(RAW))
    assert world.taken() is None
    why = "it has other content" if by_itself else "raw was made anew since"
    assert f"is not taken up: {why}. To cancel it: dg-slurm jobs cancel 17 --profile night" in caplog.text


def test_inputs_that_were_made_before_are_the_same(world: World) -> None:
    world.instance.report_runless_asset_event(dg.AssetMaterialization(RAW))
    world.launched("old")
    world.left("old")
    assert world.taken() == "old"


def test_of_several_none_is_taken_up(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for run_id in ("old", "older"):
        world.launched(run_id)
        world.left(run_id)
    assert world.taken() is None
    assert "are the same job: none is taken up" in caplog.text
