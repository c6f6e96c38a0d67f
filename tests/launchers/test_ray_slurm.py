"""The ray launcher: real Ray over the nodes of a real Slurm."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from launchers.harness import Run, nodes_of, sampled, slurm, two_node_jobs, wait_gone, wait_until
from launchers.payloads import RAY_SPREAD

from dagster_slurm_components.spec.launchers import RayLauncher
from slurm_testcluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture
def job(cluster: Cluster, ray_venv: Path, tmp_path: Path):
    """Submit a job on two nodes; whatever is left of it at the end of the test is cancelled."""
    with two_node_jobs(cluster, tmp_path, ray_venv, RAY_SPREAD, RayLauncher(grace=3), mem="3G") as start:
        yield start


def printed(run: Run) -> list[str]:
    """Return what the payload itself printed.

    Where `ray start` needs a second try on a busy machine, Ray (2.60) tells the driver of the first one's end,
    in an indented block on the payload's own stdout.
    """
    return [line for line in run.stdout.splitlines() if line.startswith(("CPUs ", "tasks ran on "))]


def nothing_is_left(cluster: Cluster, run: Run, number: str) -> None:
    wait_gone(cluster, number)
    assert run.processes() == {}
    assert list(Path(tempfile.gettempdir()).glob(f"dsr-{number}-*")) == []


def test_tasks_run_on_all_nodes_with_the_cpus_of_the_job(cluster: Cluster, job):
    run, number = job("spread", RayLauncher(host_suffix="-net"))
    run.wait_ended()
    assert run.exit_code == 0, run.report()
    assert printed(run) == ["CPUs 4 GPUs 0", "tasks ran on " + ",".join(nodes_of(cluster, run))]
    node, port = run.status["ray_dashboard"].split()
    assert node == nodes_of(cluster, run)[0]
    assert port.isdigit()
    assert sampled(run) == nodes_of(cluster, run)
    nothing_is_left(cluster, run, number)


def test_the_exit_code_is_the_payloads(cluster: Cluster, job):
    run, number = job("exit3")
    run.wait_ended()
    assert run.exit_code == 3, run.report()
    assert "failed_rank" not in run.status
    assert list((run.folder / "ranks").glob("ray-*/gcs_server.out")), "Ray's logs are kept of a failed job"
    nothing_is_left(cluster, run, number)


def test_kill_9_of_a_worker(cluster: Cluster, job):
    run, number = job("wait")
    run.wait_for("tasks ran on")
    second = nodes_of(cluster, run)[1]
    run.kill(r"raylet/raylet ", SLURMD_NODENAME=second)
    run.wait_ended()
    assert (run.exit_code, run.failed_rank) == (137, ("worker", second, "137")), run.report()
    assert f"Ray's process raylet on {second} was killed by signal 9 (SIGKILL)" in run.stderr
    nothing_is_left(cluster, run, number)


def test_f47_kill_9_of_the_head(cluster: Cluster, job):
    run, number = job("wait")
    run.wait_for("tasks ran on")
    run.kill(r"gcs/gcs_server ")
    run.wait_ended()
    assert (run.exit_code, run.failed_rank) == (137, ("head", nodes_of(cluster, run)[0], "137")), run.report()
    nothing_is_left(cluster, run, number)


def test_f47_a_worker_that_does_not_join_is_named(cluster: Cluster, job, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if os.environ.get('SLURM_STEP_ID') and 'ray.scripts.scripts' in sys.orig_argv:\n"
        "    time.sleep(600)\n"
    )
    run, number = job("spread", RayLauncher(start_timeout=90, grace=3), PYTHONPATH=str(tmp_path))
    run.wait_ended()
    assert run.exit_code == 1, run.report()
    second = nodes_of(cluster, run)[1]
    assert f"after 90 s these nodes had not joined the Ray cluster: {second}" in run.stderr
    nothing_is_left(cluster, run, number)


def test_f47_two_clusters_on_the_same_nodes_at_once(cluster: Cluster, job):
    (one, first), (two, second) = job("wait"), job("wait")
    one.wait_for("tasks ran on")
    two.wait_for("tasks ran on")
    assert "CPUs 4 GPUs 0" in printed(one)
    assert "CPUs 4 GPUs 0" in printed(two)
    slurm(cluster, "scancel", first)
    nothing_is_left(cluster, one, first)
    assert not two.ended, two.report()
    assert [line for line in two.processes().values() if "gcs_server" in line]
    slurm(cluster, "scancel", second)
    nothing_is_left(cluster, two, second)


def test_cancelling_while_the_cluster_starts(cluster: Cluster, job):
    run, number = job("wait")
    wait_until(
        lambda: any("ray.scripts.scripts" in line for line in run.processes().values()), "the start of Ray"
    )
    slurm(cluster, "scancel", number)
    nothing_is_left(cluster, run, number)
    assert "failed_rank" not in run.status, run.report()
