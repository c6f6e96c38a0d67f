"""The stations example: its days as job arrays, what depends on them, and what Dagster's UI does with them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from lifecycle.dev import Dev
from project_fixture import Project
from waiting import eventually

import slurm_testcluster as slurm

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "stations"
DAYS = [f"2025-06-0{day}" for day in range(2, 7)]
RANGE = ("--partition-range", f"{DAYS[0]}...{DAYS[-1]}")
SCRIPTS = ["raw", "clean", "fit"]
CHECKS = {"raw": "all_hours", "clean": "few_faults", "fit": "warmest_after_noon"}

needs_r = pytest.mark.skipif(shutil.which("Rscript") is None, reason="no R here")


def copy(folder: Path) -> Project:
    left_behind = shutil.ignore_patterns(".dagster*", "__pycache__")
    shutil.copytree(EXAMPLE, folder / "my stations", ignore=left_behind)
    return Project(folder / "my stations", "stations")


@pytest.fixture(scope="module")
def stations(tmp_path_factory: pytest.TempPathFactory, cluster: slurm.Cluster) -> Iterator[Project]:
    """A copy of the example whose profile `staging` finds the tests' Slurm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_SLURM_CLUSTER", str(cluster.folder))
        patch.setenv("DAGSTER_SLURM_AGENT", "off")  # an agent would outlive the test
        yield copy(tmp_path_factory.mktemp("examples"))


def instance_of(project: Project) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(str(project.root / "dagster home"))


def metadata(instance: dg.DagsterInstance, asset: str, run_id: str) -> dict[str | None, dict[str, Any]]:
    """What a run reported of an asset, partition by partition; without where files and jobs are."""
    records = instance.fetch_materializations(dg.AssetKey(["stations", asset]), limit=100).records
    return {
        record.partition_key: {
            name: value.value
            for name, value in record.asset_materialization.metadata.items()
            if not name.startswith("job/") and name != "file"
        }
        for record in records
        if record.run_id == run_id and record.asset_materialization
    }


def job_ids(instance: dg.DagsterInstance, asset: str, run_id: str) -> set[str]:
    records = instance.fetch_materializations(dg.AssetKey(["stations", asset]), limit=100).records
    return {
        str(record.asset_materialization.metadata["job/id"].value)
        for record in records
        if record.run_id == run_id and record.asset_materialization
    }


def newest(instance: dg.DagsterInstance) -> str:
    return instance.get_runs(limit=1)[0].run_id


@pytest.mark.slow
@pytest.mark.slurm
@needs_r
def test_all_days_are_the_same_here_and_as_job_arrays(stations: Project) -> None:
    stations.dg("launch", "--assets", "group:stations", *RANGE, profile="local")
    with instance_of(stations) as instance:
        here = newest(instance)
    stations.dg("launch", "--assets", "group:stations", *RANGE, profile="staging")
    with instance_of(stations) as instance:
        there = newest(instance)
        for asset in SCRIPTS:
            assert sorted(metadata(instance, asset, there)) == DAYS
            assert metadata(instance, asset, there) == metadata(instance, asset, here)
            ids = job_ids(instance, asset, there)
            assert len(ids) == len(DAYS)
            assert len({job.split("_")[0] for job in ids}) == 1, "one job array"
        (hot,), (warmest,) = (
            metadata(instance, asset, there).values() for asset in ("hot_hours", "warmest_day")
        )
        assert hot["celsius"] == 25
        assert warmest["days"] == len(DAYS)
        fits = metadata(instance, "fit", there)
        assert warmest["mean"] == max(fit["mean"] for fit in fits.values())
        entries = instance.all_logs(there, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        checked = [
            entry.dagster_event.asset_check_evaluation_data for entry in entries if entry.dagster_event
        ]
        assert {check.check_name for check in checked if check.passed} == set(CHECKS.values())
        assert all(check.passed for check in checked)


@pytest.mark.slow
@pytest.mark.slurm
@needs_r
def test_one_day_and_a_value_from_the_command_line(stations: Project) -> None:
    days = "stations/raw,stations/clean,stations/fit"
    stations.dg("launch", "--assets", days, "--partition", DAYS[2], profile="staging")
    with instance_of(stations) as instance:
        assert list(metadata(instance, "fit", newest(instance))) == [DAYS[2]]
    config = '{"ops": {"stations__hot_hours": {"config": {"celsius": -50}}}}'
    stations.dg("launch", "--assets", "stations/hot_hours", "--config-json", config, profile="staging")
    with instance_of(stations) as instance:
        (hot,) = metadata(instance, "hot_hours", newest(instance)).values()
    assert hot["celsius"] == -50
    assert hot["hours"] % 24 != 0, "what the stations' broken sensors sent is left out"


@pytest.fixture(scope="module")
def dev(stations: Project) -> Iterator[Dev]:
    """Dagster's UI and daemon, with the example."""
    with Dev.running(stations, "staging") as made:
        yield made


TICK = """
mutation ($location: String!, $at: Float!) {
  scheduleDryRun(timestamp: $at, selectorData: {
    repositoryLocationName: $location, repositoryName: "__repository__", scheduleName: "days_schedule"
  }) { ... on DryRunInstigationTick { evaluationResult { error { message } runRequests { runKey } } } }
}
"""
BACKFILL = """
mutation ($assets: [AssetKeyInput!]!, $days: [String!]!) {
  launchPartitionBackfill(backfillParams: {assetSelection: $assets, partitionNames: $days}) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}
"""


@pytest.mark.slow
@pytest.mark.slurm
@needs_r
def test_the_ui_launches_days_and_ticks_the_schedule(dev: Dev) -> None:
    assets = [{"path": ["stations", asset]} for asset in SCRIPTS]
    launched = dev.ask(BACKFILL, assets=assets, days=DAYS)["launchPartitionBackfill"]
    tag = {"dagster/backfill": launched["backfillId"]}

    morning = datetime.fromisoformat("2025-06-04T06:00:00+00:00").timestamp()
    ticked = dev.ask(TICK, location=dev.location(), at=morning)["scheduleDryRun"]["evaluationResult"]
    assert ticked == {"error": None, "runRequests": [{"runKey": "2025-06-03"}]}

    def run() -> str | None:
        with dev.instance() as instance:
            found = instance.get_runs(dg.RunsFilter(tags=tag))
        return found[0].run_id if found else None

    run_id = eventually(run, "the daemon launches the run of the backfill")
    dev.ends(run_id, dg.DagsterRunStatus.SUCCESS)
    with dev.instance() as instance:
        assert len(instance.get_runs(dg.RunsFilter(tags=tag))) == 1, "one run for all days"
        assert sorted(map(str, metadata(instance, "fit", run_id))) == DAYS
        assert len({job.split("_")[0] for job in job_ids(instance, "fit", run_id)}) == 1
