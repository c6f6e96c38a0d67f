"""What each rank sees of the GPUs that a job asked for: every launcher, on a real Slurm whose GPUs are device files.

What Slurm gives otherwise than a launcher can use it is refused before: DISAGREEMENTS in ``test_plans.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_fixture import run_folder
from launchers.harness import Run, prepare, run_here, slurm, submit
from waiting import eventually

from dagster_slurm_components.spec.launchers import (
    BashLauncher,
    LauncherSpec,
    RayLauncher,
    SrunLauncher,
    TorchrunLauncher,
)
from dagster_slurm_components.spec.resources import Resources
from slurm_testcluster import Cluster
from slurm_testcluster.lock import folder_lock

SEES = """
import os
values = (os.environ.get(name, "-") for name in (*RANK, "CUDA_VISIBLE_DEVICES"))
os.write(1, f"sees {' '.join(values)}\\n".encode())  # one write: the lines of several ranks don't mix
"""
BATCH = 'RANK = ("SLURM_JOB_NUM_NODES",)' + SEES
OF_SRUN = 'RANK = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")' + SEES
OF_TORCH = 'RANK = ("RANK", "WORLD_SIZE", "LOCAL_RANK")' + SEES
OF_RAY = """
import os, ray
ray.init(log_to_driver=False, logging_level="ERROR")

count = int(ray.cluster_resources()["GPU"])
names = {node["NodeID"]: node["NodeName"] for node in ray.nodes()}
# Held until all have one: no two share a GPU.
@ray.remote(num_cpus=0, num_gpus=1)
class Holder:
    def sees(self):
        return ray.get_runtime_context().get_node_id(), os.environ["CUDA_VISIBLE_DEVICES"]

for node, gpu in sorted(ray.get([each.sees.remote() for each in [Holder.remote() for _ in range(count)]])):
    print("sees", names[node], gpu, flush=True)
"""

AGENT = """
import os
os.write(1, f"sees {os.environ['SLURM_NODEID']} {os.environ['CUDA_VISIBLE_DEVICES']}\\n".encode())
"""
"""Stands for torchrun's agent."""

Start = Callable[..., Run]


@pytest.fixture
def start(cluster: Cluster, tmp_path: Path) -> Iterator[Start]:
    """Run a job of the partition with GPUs to its end; whatever is left of it is cancelled.

    The GPUs that it gets are the first: no other worker's job has them meanwhile, and a job before it that has said
    its last word, and still holds its own for a while, is waited for.
    """
    jobs: list[str] = []
    running = (
        "squeue",
        "--noheader",
        "--nodelist=node3,node4",
        "--states=RUNNING,COMPLETING",
        "--Format=tres-alloc:200",
    )

    def start(
        launcher: LauncherSpec, payload: str, resources: Resources, prefix: Path | None = None, **env: str
    ) -> Run:
        asked = resources.model_copy(update={"partition": "gpu", "time": "00:05:00"})
        folder = tmp_path / "run"
        run = prepare(folder, launcher, payload, resources=asked, scheduler="slurm", prefix=prefix, env=env)
        jobs.append(submit(cluster, run))
        run.wait_ended()
        assert run.exit_code == 0, run.report()
        return run

    with folder_lock(run_folder() / "gpus"):
        eventually(lambda: "gpu" not in slurm(cluster, *running), "the GPUs to be free")
        yield start
        for number in jobs:
            slurm(cluster, "scancel", number)


def seen(run: Run) -> list[str]:
    """Return what the ranks printed, in the order of their numbers."""
    return sorted(line[5:] for line in run.stdout.splitlines() if line.startswith("sees "))


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("resources", "visible"),
    [
        ({"gpus_per_node": "a100:2"}, "1 0,1"),
        ({"gpus": "a100:4"}, "1 0,1,2,3"),
        ({"nodes": 2, "gres": "gpu:a100:2"}, "2 0,1"),
    ],
)
def test_a_script_sees_what_its_job_has_on_the_first_node(start: Start, resources: dict, visible: str):
    run = start(BashLauncher(), BATCH, Resources(mem="200M", **resources))
    assert seen(run) == [visible], run.report()


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("resources", "ranks"),
    [
        ({"nodes": 1, "ntasks": 2, "gpus": 2}, ["0 2 0 0,1", "1 2 1 0,1"]),
        (
            {"nodes": 2, "ntasks_per_node": 2, "gpus_per_node": "a100:2"},
            ["0 4 0 0,1", "1 4 1 0,1", "2 4 0 0,1", "3 4 1 0,1"],
        ),
        (
            {"nodes": 2, "ntasks_per_node": 2, "gpus_per_task": 1},
            ["0 4 0 0", "1 4 1 1", "2 4 0 0", "3 4 1 1"],
        ),
        ({"nodes": 2, "gpus": 4, "ntasks_per_gpu": 1}, ["0 4 0 0", "1 4 1 1", "2 4 0 0", "3 4 1 1"]),
    ],
)
def test_tasks_of_srun_see_the_gpus_of_their_node_or_their_own(
    start: Start, resources: dict, ranks: list[str]
):
    run = start(SrunLauncher(output="all"), OF_SRUN, Resources(mem="400M", **resources))
    assert seen(run) == ranks, run.report()


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.parametrize(
    ("resources", "ranks"),
    [
        ({"gpus": "a100:3"}, ["0 3 0 0,1,2", "1 3 1 0,1,2", "2 3 2 0,1,2"]),
        ({"nodes": 2, "gres": "gpu:a100:2"}, ["0 4 0 0,1", "1 4 1 0,1", "2 4 0 0,1", "3 4 1 0,1"]),
    ],
)
def test_torchrun_starts_a_rank_for_each_gpu(
    start: Start, torch_venv: Path, resources: dict, ranks: list[str]
):
    launcher = TorchrunLauncher(nproc_per_node="gpu", output="all")
    run = start(launcher, OF_TORCH, Resources(cpus_per_task=4, mem="1G", **resources), torch_venv)
    assert seen(run) == ranks, run.report()


@pytest.mark.slurm
@pytest.mark.parametrize("bound", [{}, {"gpu_bind": "single:1"}, {"gpu_bind": "closest"}])
def test_an_agent_sees_all_gpus_of_its_node_whatever_is_bound(start: Start, tmp_path: Path, bound: dict):
    """Slurm 26.05 binds the one task of a node, too."""
    (tmp_path / "torch" / "distributed").mkdir(parents=True)
    (tmp_path / "torch" / "distributed" / "run.py").write_text(AGENT)
    asked = Resources(nodes=2, gpus_per_node=2, mem="200M", **bound)
    run = start(TorchrunLauncher(nproc_per_node=2), "", asked, PYTHONPATH=str(tmp_path))
    assert seen(run) == ["0 0,1", "1 0,1"], run.report()


@pytest.mark.slurm
@pytest.mark.slow
def test_ray_has_the_gpus_of_both_nodes(start: Start, ray_venv: Path):
    asked = Resources(nodes=2, cpus_per_task=2, mem="3G", gpus_per_task="a100:2")
    run = start(RayLauncher(dashboard=False), OF_RAY, asked, ray_venv)
    assert seen(run) == ["node3 0", "node3 1", "node4 0", "node4 1"], run.report()


@pytest.mark.slow
def test_ranks_on_mig_instances_have_one_each(torch_venv: Path, tmp_path: Path):
    """CUDA shows a process the first instance alone, as device 0."""
    env = {"CUDA_VISIBLE_DEVICES": "MIG-aaaa,MIG-bbbb"}
    launcher = TorchrunLauncher(nproc_per_node="gpu", output="all")
    run = run_here(prepare(tmp_path / "run", launcher, OF_TORCH, prefix=torch_venv, env=env))
    assert run.exit_code == 0, run.report()
    assert seen(run) == ["0 2 0 MIG-aaaa", "1 2 0 MIG-bbbb"]
