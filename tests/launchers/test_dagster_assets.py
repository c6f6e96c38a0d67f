"""Distributed payloads as assets: the same YAML on this machine and on two nodes of a real Slurm."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import dagster as dg
import pytest
from launchers.harness import processes_of
from launchers.payloads import RAY_REPORT, TORCH_REPORT, TORCH_SUM
from project_fixture import Project, failure_text

import slurm_testcluster as slurm

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def script(launcher: str, venv: Path, more: str = "") -> str:
    return f"""
    scripts:
      - payload: payload.py
        launcher: {launcher}
        resources: {{nodes: 2, cpus_per_task: 2, mem: 3G, time: "00:05:00"}}
        environment: {{type: path, path: "{venv}"}}
        assets: [{{key: result}}]
        {more}
    """


def run(project: Project, profile: str, instance: dg.DagsterInstance) -> tuple[dict[str, object], str]:
    """Materialize the asset; return its metadata and the run's log."""
    result = project.run(profile, instance=instance)
    said = "\n".join(record.user_message for record in instance.all_logs(result.run_id))
    assert result.success, said + failure_text(result)
    (event,) = result.get_asset_materialization_events()
    metadata = {name: value.value for name, value in event.materialization.metadata.items()}
    assert processes_of(Path(str(metadata["job/run_directory"]))) == {}
    return metadata, said


@pytest.mark.parametrize("profile", ["local", "staging"])
def test_torchrun(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, torch_venv: Path, profile: str
) -> None:
    project.staging(cluster)
    project.write("payload.py", TORCH_REPORT)
    project.scripts(script("{type: torchrun, nproc_per_node: 2}", torch_venv))
    metadata, said = run(project, profile, instance)
    assert "rank 0 speaks" in said
    assert not re.search(r"rank [123] speaks", said)
    where = str(metadata["nodes"]).split(" ")
    if profile == "local":
        assert (metadata["world"], metadata["sum"], where) == (2, 1, ["here", "here"])
    else:
        assert (metadata["world"], metadata["sum"]) == (4, 6)
        assert (where[0], where[2]) == (where[1], where[3])
        assert where[0] != where[2]


@pytest.mark.parametrize("profile", ["local", "staging"])
def test_ray(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, ray_venv: Path, profile: str
) -> None:
    project.staging(cluster)
    project.write("payload.py", RAY_REPORT)
    project.scripts(script("{type: ray}", ray_venv))
    metadata, said = run(project, profile, instance)
    dashboard, nodes = str(metadata["job/ray_dashboard"]), str(metadata["nodes"]).split(" ")
    if profile == "local":
        assert (metadata["cpus"], nodes) == (2, [socket.gethostname()])
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", dashboard)
    else:
        assert (metadata["cpus"], len(set(nodes))) == (4, 2)
        assert re.fullmatch(rf"dg-slurm forward {metadata['job/id']} 8265:\d+ --profile staging", dashboard)
    told = [line for line in said.splitlines() if line.startswith("Ray's dashboard: ")]
    assert len(told) == 1
    assert dashboard in told[0]
    token = (Path(str(metadata["job/run_directory"])) / "ray.token").read_text()
    assert token not in said


def test_a_failed_rank_is_named(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, torch_venv: Path
) -> None:
    project.staging(cluster)
    project.write("payload.py", TORCH_SUM)
    project.scripts(script("{type: torchrun, nproc_per_node: 2, grace: 3}", torch_venv, "args: [exit7]"))
    result = project.run("staging", instance=instance)
    assert not result.success
    text = failure_text(result)
    found = re.search(r"Rank 3 on (\S+) ended with exit code 7, which ended the job", text)
    assert found, text
    (status,) = (project.root / "cluster work" / "runs").rglob("status")
    assert f"Run directory: {status.parent}" in text
    assert f"failed_rank=3 {found[1]} 7\n" in status.read_text()
    assert processes_of(status.parent) == {}
