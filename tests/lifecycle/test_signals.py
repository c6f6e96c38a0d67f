"""The signal before the time limit reaches every rank, and the exit code that they choose is the job's."""

from __future__ import annotations

from pathlib import Path

import pytest
from launchers.harness import prepare, slurm, submit, wait_gone, wait_until

from dagster_slurm_components.spec.launchers import (
    BashLauncher,
    LauncherSpec,
    RayLauncher,
    SrunLauncher,
    TorchrunLauncher,
)
from dagster_slurm_components.spec.resources import Resources
from slurm_testcluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

PAYLOAD = """
import os, signal, sys, time
rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0"
asked = []
signal.signal(signal.SIGUSR1, lambda number, frame: asked.append(number))
print("rank", rank, "listens", flush=True)
while not asked:
    time.sleep(0.05)
print("rank", rank, "was asked", flush=True)
open(os.path.join(os.environ["DAGSTER_SLURM_CHECKPOINT"], "state." + rank), "w").close()
while len(os.listdir(os.environ["DAGSTER_SLURM_CHECKPOINT"])) < int(sys.argv[1]):
    time.sleep(0.05)  # who leaves first ends the others
time.sleep(1)
sys.exit(75)
"""
LAUNCHERS: dict[str, tuple[LauncherSpec, int]] = {
    "bash": (BashLauncher(), 1),
    "srun": (SrunLauncher(), 4),
    "torchrun": (TorchrunLauncher(nproc_per_node=2, grace=10), 4),
    "ray": (RayLauncher(grace=3), 1),
}


@pytest.mark.parametrize(
    "name",
    [
        "bash",
        "srun",
        pytest.param("torchrun", marks=pytest.mark.frameworks),
        pytest.param("ray", marks=pytest.mark.frameworks),
    ],
)
def test_every_rank_writes_its_checkpoint_and_the_exit_code_is_kept(
    cluster: Cluster, tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    launcher, ranks = LAUNCHERS[name]
    venvs = {"torchrun": "torch_venv", "ray": "ray_venv"}
    prefix = request.getfixturevalue(venvs[name]) if name in venvs else None
    tasks = {"ntasks_per_node": 2} if name == "srun" else {}
    resources = Resources(nodes=2, cpus_per_task=2, mem="3G", time="00:05:00", **tasks)
    run = prepare(
        tmp_path / "run" / "0",
        launcher,
        PAYLOAD,
        args=[str(ranks)],
        resources=resources,
        scheduler="slurm",
        prefix=prefix,
    )
    job = submit(cluster, run)
    try:
        for rank in range(ranks):
            run.wait_for("listens", _output(rank))
        # As Slurm does it for `signal: B:USR1@...`, which is what `signal: USR1@...` becomes.
        slurm(cluster, "scancel", "--batch", "--signal=USR1", job)
        run.wait_ended()
        checkpoint = tmp_path / "run" / "checkpoint"
        assert {file.name for file in checkpoint.iterdir()} == {f"state.{rank}" for rank in range(ranks)}
        assert run.exit_code == 75, run.report()
        for rank in range(ranks):
            assert run.read(_output(rank)).count("was asked") == 1
    finally:
        slurm(cluster, "scancel", job)
    wait_gone(cluster, job)
    wait_until(lambda: not run.processes(), "the end of all processes")


TOLD = """
import os, signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda number, frame: (told.append(number), print("told", flush=True)))
print("listens", flush=True)
while not told:
    time.sleep(0.05)
time.sleep(2)
"""


@pytest.mark.smoke
@pytest.mark.parametrize(
    "command", [["scancel"], ["scancel", "--batch", "--signal=TERM"]], ids=["all", "batch"]
)
def test_a_payload_is_told_once_to_stop(cluster: Cluster, tmp_path: Path, command: list[str]) -> None:
    """Slurm tells every process of the job, or its batch script alone, which then passes it on."""
    run = prepare(tmp_path / "run" / "0", BashLauncher(), TOLD, scheduler="slurm")
    job = submit(cluster, run)
    run.wait_for("listens")
    slurm(cluster, *command, job)
    run.wait_ended()
    wait_gone(cluster, job)
    assert run.stdout.count("told") == 1
    assert "signal=TERM" in run.read("status")
    wait_until(lambda: not run.processes(), "the end of all processes")


@pytest.mark.smoke
def test_a_payload_is_told_once_of_a_requeue(cluster: Cluster, tmp_path: Path) -> None:
    """Its next start listens again, and is not told of the end of the first."""
    run = prepare(tmp_path / "run" / "0", BashLauncher(), TOLD, scheduler="slurm")
    job = submit(cluster, run)
    try:
        run.wait_for("listens")
        slurm(cluster, "scontrol", "requeue", job)
        wait_until(lambda: "restart=1" in run.read("status"), "the next start")
        wait_until(lambda: run.stdout.count("listens") == 2, "the payload's next start")
        assert run.stdout.count("told") == 1
        assert run.read("status").count("signal=TERM") == 1
    finally:
        slurm(cluster, "scancel", job)
    run.wait_ended()
    wait_gone(cluster, job)
    assert run.stdout.count("told") == 2
    wait_until(lambda: not run.processes(), "the end of all processes")


def _output(rank: int) -> str:
    return f"ranks/{rank}.out" if rank else "stdout.log"
