"""What a real job uses, from its sampler to Dagster: figures, pictures and notes, in both profiles."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from project_fixture import Project

import slurm_testcluster as slurm
from dagster_slurm_components.cli.main import main

PAYLOAD = """
import time

kept = bytearray(b"x") * (300 * 2**20)
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    time.sleep(0.01)
"""
SCRIPTS = """
scripts:
  - payload: uses.py
    resources: {{mem: 2G, cpus_per_task: 2}}
    assets: [{{key: a}}]
"""


def figures_of(instance: dg.DagsterInstance) -> dict[str, Any]:
    (record,) = instance.fetch_materializations(dg.AssetKey("a"), limit=2).records
    assert record.asset_materialization is not None
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


@pytest.mark.slow
def test_on_this_machine(project: Project, instance: dg.DagsterInstance) -> None:
    project.write("uses.py", PAYLOAD.format(seconds=18))
    project.scripts(SCRIPTS.format())
    assert project.run("local", instance=instance).success
    figures = figures_of(instance)
    assert 300 <= figures["job/memory_max_mib"] <= 345
    assert len(figures["job/usage"]) < 1000
    assert "memory 3" in figures["job/usage"]
    assert 1000 <= len(figures["job/chart"]) <= 20_000
    assert "job/notes" not in figures, "a process asked for nothing"


@pytest.mark.slow
def test_of_a_job_that_failed(project: Project, instance: dg.DagsterInstance) -> None:
    project.write("uses.py", PAYLOAD.format(seconds=16) + "raise SystemExit(3)\n")
    project.scripts(SCRIPTS.format())
    done = project.run("local", instance=instance)
    (event,) = done.get_step_failure_events()
    failure = event.step_failure_data.user_failure_data
    assert failure is not None
    assert isinstance(failure.metadata["job/usage"], dg.MarkdownMetadataValue)
    assert isinstance(failure.metadata["job/chart"], dg.MarkdownMetadataValue)


@pytest.mark.slow
@pytest.mark.slurm
def test_on_slurm(
    project: Project,
    instance: dg.DagsterInstance,
    cluster: slurm.Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project.staging(cluster)
    project.write("uses.py", PAYLOAD.format(seconds=65))
    file = project.scripts(SCRIPTS.format()).relative_to(project.root)
    done = project.run("staging", instance=instance)
    assert done.success
    figures = figures_of(instance)
    assert figures["job/notes"].splitlines() == [
        f"* used 0.3 of 2 GiB: `mem: 600M` would do ({file}:6)",
        f"* 1 of 2 CPUs used: `cpus_per_task: 1` would do ({file}:6)",
    ]
    assert figures["job/cpus_busy"] < 0.5
    assert {"job/usage", "job/chart", "job/core_hours"} <= figures.keys()
    said = [entry.user_message for entry in instance.all_logs(done.run_id)]
    assert f"Job {figures['job/id']}: used 0.3 of 2 GiB: `mem: 600M` would do ({file}:6)" in said
    monkeypatch.setenv("DAGSTER_HOME", instance.root_directory)
    advised = CliRunner().invoke(main, ["advise"])
    assert advised.exit_code == 0, advised.output
    assert "a (staging, 1 of 1 runs): used 0.3 of 2 GiB: " in advised.stderr
    assert "+      resources: {mem: 600M, cpus_per_task: 1}\n" in advised.stdout
