"""Where Dagster runs: on a PostgreSQL, with two code locations on one cluster that know the same names."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
from cluster_fixture import REQUIRED
from lifecycle.dev import Dev
from postgres import NoPostgresError, postgres
from project_fixture import Project, make_project
from waiting import eventually

import slurm_testcluster as slurm
from dagster_slurm_components.pipes.records import worker

pytestmark = pytest.mark.slow

STATUS = dg.DagsterRunStatus
WORKSPACE = """
directory_type = "workspace"

[workspace]
[[workspace.projects]]
path = "one"
[[workspace.projects]]
path = "two"
"""
SCRIPTS = """
scripts:
  - payload: tell.sh
    args: [model, {name}]
    assets: [{{key: model}}]
  - payload: tell.sh
    args: [left, {name}]
    leave: true
    assets: [{{key: left}}]
"""
TELL = """
. pipes.sh
touch "$GATES/$1 $2 begins"
while [ ! -e "$GATES/$1 $2" ]; do sleep 0.1; done
pipes_materialize "$1" what="$2"
"""
MORE = """
from pathlib import Path
import dagster as dg
from dagster_slurm_components import slurm_executor, slurm_jobs_sensor

@dg.definitions
def more():
    healer = slurm_jobs_sensor(project=Path(__file__).parent, minimum_interval_seconds=5)
    return dg.Definitions(executor=slurm_executor, sensors=[healer])
"""
RELOAD = """
mutation ($location: String!) {
  reloadRepositoryLocation(repositoryLocationName: $location) {
    ... on WorkspaceLocationEntry { locationOrLoadError { __typename } }
  }
}
"""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """What a ``dagster.yaml`` says of a PostgreSQL."""
    try:
        with postgres() as settings:
            yield settings
    except NoPostgresError as error:
        if REQUIRED:
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, cluster: slurm.Cluster, database: str) -> Iterator[Dev]:
    """A workspace; its projects `one` and `two` differ in what their payloads report, and in nothing else."""
    workspace = tmp_path_factory.mktemp("places") / "my workspace"
    one, two = (make_project(workspace / name) for name in ("one", "two"))
    (workspace / "dg.toml").write_text(WORKSPACE)
    one.staging(cluster)
    profile = (one.root / "profiles" / "staging.yaml").read_text()
    for project in (one, two):
        project.profile("staging", f"{profile}env: {{GATES: '{workspace / 'gates'}'}}\n")
        project.write("tell.sh", TELL)
        project.scripts(SCRIPTS.format(name=project.root.name))
        (project.defs.parent / "more.py").write_text(MORE)
    with Dev.running(one, "staging", cluster, settings=database, workspace=workspace) as made:
        yield made


@pytest.fixture
def one(dev: Dev) -> Dev:
    """A location of the workspace; each test opens its gates itself."""
    for gate in dev.gates.iterdir():
        gate.unlink()
    return dev


@pytest.fixture
def two(one: Dev) -> Dev:
    """The other."""
    (defs,) = one.root.glob("two/src/*/defs")
    return replace(one, project=Project(one.root / "two", defs.parent.name))


def begins(dev: Dev, asset: str, name: str) -> None:
    eventually((dev.gates / f"{asset} {name} begins").exists, f"the payload of {asset} in {name} begins")


def told(dev: Dev, asset: str) -> list[tuple[str, Any]]:
    """What payloads reported, with the run, the newest first."""
    return [(run, metadata["what"]) for run, metadata in dev.materializations(asset)]


def test_a_running_job_outlives_a_reload_and_the_next_run_has_the_new_yaml(one: Dev) -> None:
    first = one.launch("model")
    begins(one, "model", "one")
    one.project.scripts(SCRIPTS.format(name="one again"))
    entry = one.ask(RELOAD, location=one.location())["reloadRepositoryLocation"]
    assert entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"
    second = one.launch("model")
    begins(one, "model", "one again")
    assert one.status(first) is STATUS.STARTED
    for gate in ("model one", "model one again"):
        (one.gates / gate).touch()
    for run in (first, second):
        one.ends(run, STATUS.SUCCESS)
    assert {(first, "one"), (second, "one again")} <= {*told(one, "model")}
    one.project.scripts(SCRIPTS.format(name="one"))
    one.ask(RELOAD, location=one.location())


def test_two_locations_with_the_same_names_keep_their_jobs_apart(one: Dev, two: Dev) -> None:
    """Those that were left too: a run of the other location must not end them first, as of other content."""
    locations = {"one": one, "two": two}
    leaving = [each.launch("left") for each in locations.values()]
    runs = {(each.launch("model"), name) for name, each in locations.items()}
    for asset in ("left", "model"):
        for name in locations:
            begins(one, asset, name)
    for run in leaving:
        one.ends(run, STATUS.SUCCESS)
    listed = json.loads(two.dg_slurm("jobs", "list", "--json").stdout)
    assert {run for run, _ in runs} < {row["run_id"] for row in listed}
    assert sorted((row["step"], row["state"]) for row in listed) == [
        *[("left", "RUNNING")] * 2,
        *[("model", "RUNNING")] * 2,
    ]
    for name in locations:
        (one.gates / f"left {name}").touch()
        (one.gates / f"model {name}").touch()
    for run, _ in runs:
        one.ends(run, STATUS.SUCCESS)
        assert len(one.launches(run)) == 1
    assert runs <= {*told(one, "model")}

    def reported() -> list[Any]:
        return sorted(what for _, what in told(one, "left"))

    eventually(lambda: len(reported()) == 2, "the sensors report both jobs that were left")
    assert reported() == ["one", "two"]


def test_a_killed_run_is_found_and_its_job_taken_up(one: Dev, two: Dev) -> None:
    run = two.launch("model")
    begins(one, "model", "two")
    with one.instance() as instance:
        found = instance.get_run_by_id(run)
    owner = worker(found) if found else None
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)
    one.ends(run, STATUS.FAILURE)
    retry = one.retry_of(run)
    one.hears(retry, "taken up again")
    (one.gates / "model two").touch()
    one.ends(retry, STATUS.SUCCESS)
    assert told(one, "model")[0] == (retry, "two")
    assert len(one.launches(run)) == 1
