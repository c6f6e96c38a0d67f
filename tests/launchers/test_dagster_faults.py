"""Faults and terminations of distributed assets in a real `dg dev`: what Dagster shows, what the nodes still run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from launchers.harness import Run, nodes_of, wait_gone, wait_until
from launchers.payloads import RAY_SPREAD, TORCH_SUM
from lifecycle.dev import Dev
from project_fixture import make_project
from waiting import PATIENCE

import slurm_testcluster as slurm

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

RUNS = {
    "train": ("of 4 sum 6", "stdout.log"),
    "sweep": ("tasks ran on", "stdout.log"),
    "hangs": ("rank 3 hangs", "ranks/3.out"),
}
"""What an asset's payload prints once it is where a test wants it, and where it does."""


@pytest.fixture(scope="module")
def dev(
    tmp_path_factory: pytest.TempPathFactory, cluster: slurm.Cluster, torch_venv: Path, ray_venv: Path
) -> Iterator[Dev]:
    """A `dg dev` whose scripts run on two nodes until they are stopped."""
    project = make_project(tmp_path_factory.mktemp("faults") / "my project")
    project.staging(cluster)
    project.write("train.py", TORCH_SUM)
    project.write("sweep.py", RAY_SPREAD)
    project.scripts(
        f"""
        defaults: {{resources: {{nodes: 2, cpus_per_task: 2, mem: 3G, time: "00:05:00"}}}}
        scripts:
          - payload: train.py
            args: [wait]
            launcher: {{type: torchrun, nproc_per_node: 2, grace: 3}}
            environment: {{type: path, path: "{torch_venv}"}}
            assets: [{{key: train}}]
          - payload: train.py
            args: [hang]
            launcher: {{type: torchrun, nproc_per_node: 2, grace: 3}}
            environment: {{type: path, path: "{torch_venv}"}}
            assets: [{{key: hangs}}]
          - payload: sweep.py
            args: [wait]
            launcher: {{type: ray, grace: 3}}
            environment: {{type: path, path: "{ray_venv}"}}
            assets: [{{key: sweep}}]
        """
    )
    with Dev.running(project, "staging") as made:
        yield made


def launch(dev: Dev, asset: str) -> tuple[str, Run]:
    """Launch an asset; return when its payload is at work."""
    # No retries: the daemon would start another run in the place of one that failed.
    run_id = dev.launch(asset, tags={"dagster/max_retries": "0"})
    wait_until(lambda: dev.launches(run_id), "the submission", timeout=PATIENCE)
    run = Run(Path(dev.launches(run_id)[-1].run_dir))
    text, name = RUNS[asset]
    run.wait_for(text, name, timeout=PATIENCE)
    return run_id, run


def failure_of(dev: Dev, run_id: str) -> str:
    with dev.instance() as instance:
        for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
            assert entry.dagster_event
            user = entry.dagster_event.step_failure_data.user_failure_data
            assert user
            return user.description or ""
    raise AssertionError(dev.said(run_id))


def nothing_is_left(cluster: slurm.Cluster, run: Run) -> None:
    job = run.status["job_id"]
    wait_gone(cluster, job)
    assert run.processes() == {}
    assert list(Path(tempfile.gettempdir()).glob(f"dsr-{job}-*")) == []


def ends(dev: Dev, run_id: str, status: dg.DagsterRunStatus) -> None:
    """Wait for a run's end, and say how long it took: a few seconds, where nothing else keeps the machine busy."""
    began = time.monotonic()
    dev.ends(run_id, status)
    print(f"the run ended {time.monotonic() - began:.1f} s later")


@pytest.mark.parametrize(
    ("asset", "pattern", "who"),
    [
        ("train", "python train.py", "Rank 2"),
        ("sweep", "raylet/raylet ", "Ray's worker"),
        ("sweep", "gcs/gcs_server ", "Ray's head"),
    ],
    ids=["rank", "worker", "head"],
)
def test_kill_9_fails_the_asset_within_seconds_and_names_the_victim(
    dev: Dev, cluster: slurm.Cluster, asset: str, pattern: str, who: str
) -> None:
    run_id, run = launch(dev, asset)
    if asset == "train":
        run.kill(pattern, RANK="2")
        node = run.read("ranks/2.out").split(" on ")[1].split()[0]
    else:
        node = nodes_of(cluster, run)[who == "Ray's worker"]
        run.kill(pattern, SLURMD_NODENAME=node)
    ends(dev, run_id, dg.DagsterRunStatus.FAILURE)
    text = failure_of(dev, run_id)
    assert f"{who} on {node} ended with exit code 137 (signal SIGKILL), which ended the job." in text
    nothing_is_left(cluster, run)


@pytest.mark.parametrize("asset", ["train", "sweep", "hangs"])
def test_a_termination_stops_all_ranks(dev: Dev, cluster: slurm.Cluster, asset: str) -> None:
    """Also one that ignores SIGTERM, as rank 3 of ``hangs`` does."""
    run_id, run = launch(dev, asset)
    dev.terminate(run_id)
    ends(dev, run_id, dg.DagsterRunStatus.CANCELED)
    nothing_is_left(cluster, run)
    assert "failed_rank" not in run.status, run.report()
