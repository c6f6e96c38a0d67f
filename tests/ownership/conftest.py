"""Projects for tests of who owns a job: on this machine, and, where it matters most, on a real Slurm too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from ownership.work import Work
from project_fixture import Project

import slurm_testcluster as slurm
from dagster_slurm_components import ComputeResource

# Only a run that says so itself is promised a retry; there is no daemon that would keep the promise.
DAGSTER_YAML = """
telemetry: {enabled: false}
run_retries: {enabled: true, max_retries: 0}
"""


@pytest.fixture
def profile() -> str:
    """The profile; a test that runs in several has a parameter of this name."""
    return "local"


@pytest.fixture
def home_instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance that processes of their own use too."""
    home = tmp_path / "instance"
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    with dg.DagsterInstance.from_config(str(home)) as made:
        yield made


@pytest.fixture
def work(
    project: Project,
    home_instance: dg.DagsterInstance,
    profile: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Work]:
    """A project whose runs can be killed."""
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", profile)
    cluster: slurm.Cluster | None = None
    if profile == "staging":
        cluster = request.getfixturevalue("cluster")
        assert cluster is not None
        project.staging(cluster)
    made = Work(project, home_instance, profile, cluster)
    try:
        yield made
    finally:
        made.tidy()


@pytest.fixture
def compute(work: Work) -> ComputeResource:
    """The resource, for assets that a test writes down itself."""
    return ComputeResource(project=str(work.project.root))
