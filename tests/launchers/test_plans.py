"""Every shipped launcher's plan, as golden text; and launchers from other packages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.launchers.base import LaunchContext, LaunchPlan, payload_argv
from dagster_slurm_components.launchers.plans import plan
from dagster_slurm_components.slurm.header import render_header
from dagster_slurm_components.spec.launchers import (
    LAUNCHERS,
    BashLauncher,
    LauncherSpec,
    RayLauncher,
    SrunLauncher,
    TorchrunLauncher,
)
from dagster_slurm_components.spec.resources import Resources

GOLDEN = Path(__file__).parent / "golden"
TWO_NODES = Resources(nodes=2, cpus_per_task=4, mem="8G", time="00:30:00")
FOUR_TASKS = Resources(nodes=2, ntasks_per_node=2, cpus_per_task=3)

CASES: dict[str, tuple[LauncherSpec, Resources, str]] = {
    "bash": (BashLauncher(), TWO_NODES, "slurm"),
    "srun": (SrunLauncher(), FOUR_TASKS, "slurm"),
    "srun-all-options": (
        SrunLauncher(
            mpi="pmix",
            cpu_bind="cores",
            mem_bind="local",
            distribution="block:cyclic",
            hint="nomultithread",
            options={"gpu_bind": "closest", "exact": True, "overlap": False},
            output="all",
            grace=60,
        ),
        Resources(ntasks=64),
        "slurm",
    ),
    "srun-unknown-tasks": (SrunLauncher(), Resources(nodes="2-4", ntasks_per_node=2), "slurm"),
    "srun-local": (SrunLauncher(local_tasks=2), FOUR_TASKS, "process"),
    "torchrun": (TorchrunLauncher(nproc_per_node=2), TWO_NODES, "slurm"),
    "torchrun-elastic": (
        TorchrunLauncher(
            nproc_per_node="gpu", nnodes="1:4", max_restarts=3, rendezvous_timeout=600, host_suffix="-ib0"
        ),
        Resources(nodes="1-4", gpus_per_node=4),
        "slurm",
    ),
    "ray": (RayLauncher(), TWO_NODES, "slurm"),
    "ray-all-options": (
        RayLauncher(
            object_store_memory="2G",
            dashboard=False,
            ray_start_args=["--labels=tier=gold"],
            start_timeout=600,
            host_suffix="i",
            grace=60,
        ),
        TWO_NODES,
        "slurm",
    ),
    "ray-local": (RayLauncher(), Resources(cpus_per_task=2), "process"),
    "ray-existing": (RayLauncher(address="10.1.2.3:6379"), TWO_NODES, "slurm"),
}


def as_text(made: LaunchPlan, resources: Resources) -> str:
    """Render what a plan puts into the run directory."""
    header = render_header(list({**made.sbatch, **dict(resources.sbatch_options())}.items()))
    arguments = made.arguments().decode().rstrip("\0").split("\0")
    parts = {
        "job.sh": header.rstrip("\n").split("\n"),
        "launch.sh": [line for line in made.script.split("\n") if line and not line.startswith("#")],
        "launch.args": arguments,
        "env": [f"{name}={value}" for name, value in made.env.items()],
        "files": sorted(made.files),
    }
    return "".join(f"[{name}]\n" + "".join(f"{line}\n" for line in lines) for name, lines in parts.items())


@pytest.mark.parametrize("name", CASES)
def test_plans_are_the_golden_ones(name: str):
    """Run with DAGSTER_SLURM_UPDATE_GOLDEN=1 to write them anew, and read the difference."""
    launcher, resources, scheduler = CASES[name]
    made = plan(
        launcher, payload_argv("train.py", None, ["--note", "a b;$(c)"]), LaunchContext(resources, scheduler)
    )
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("DAGSTER_SLURM_UPDATE_GOLDEN") == "1":
        golden.write_text(as_text(made, resources))
    assert as_text(made, resources) == golden.read_text()


def test_every_golden_file_has_its_case():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)


@pytest.mark.parametrize("launcher", [launcher for launcher, _, _ in CASES.values()], ids=list(CASES))
def test_launchers_survive_dump_and_load(launcher: LauncherSpec):
    assert LAUNCHERS.validate(launcher.model_dump()) == launcher


WRONG = [
    ({"type": "srun", "options": {"output": "x"}}, "output: first"),
    ({"type": "srun", "options": {"ntasks": "4"}}, "write it in `resources`"),
    ({"type": "srun", "options": {"mpi": "pmix"}}, "beside `options`"),
    ({"type": "srun", "options": {"GPU-bind": "x"}}, "underscores"),
    ({"type": "srun", "mpi": "pmix\n--x"}, "one line"),
    ({"type": "srun", "grace": 0}, "greater than or equal to 1"),
    ({"type": "torchrun", "nproc_per_node": "many"}, "nproc_per_node"),
    ({"type": "torchrun", "nproc_per_node": 0}, "nproc_per_node"),
    ({"type": "torchrun", "nnodes": "4:1"}, "range of nodes"),
    ({"type": "torchrun", "nnodes": 2}, "range of nodes"),
    ({"type": "torchrun", "host_suffix": "; rm"}, "host name"),
    ({"type": "torchrun", "nproc_pernode": 2}, "unknown key"),
    ({"type": "ray", "object_store_memory": "much"}, "memory size"),
    ({"type": "ray", "address": ""}, "got nothing"),
]


@pytest.mark.parametrize(("data", "message"), WRONG, ids=[str(data) for data, _ in WRONG])
def test_wrong_launchers_say_why(data: dict[str, object], message: str):
    with pytest.raises(ValidationError) as error:
        LAUNCHERS.validate(data)
    details = str(error.value) + "".join(str(item.get("ctx")) for item in error.value.errors())
    assert message in details


DISAGREEMENTS = [
    (TorchrunLauncher(), Resources(nodes=2, ntasks_per_node=4), ("resources", "ntasks_per_node")),
    (TorchrunLauncher(), Resources(nodes=2, ntasks=8), ("resources", "ntasks")),
    (TorchrunLauncher(nproc_per_node=4), Resources(gpus_per_node=2), ("launcher", "nproc_per_node")),
    (TorchrunLauncher(nnodes="1:4"), Resources(nodes=8), ("launcher", "nnodes")),
    (RayLauncher(), Resources(ntasks_per_node=2), ("resources", "ntasks_per_node")),
    # What Slurm 22.05 spread as 3 + 1, or refused: see test_gpus_slurm.py for what is right.
    (TorchrunLauncher(nproc_per_node=2), Resources(nodes=2, gpus=4), ("resources", "gpus")),
    (TorchrunLauncher(nproc_per_node="gpu"), Resources(nodes="1-2", gpus="a100:4"), ("resources", "gpus")),
    (RayLauncher(), Resources(nodes=2, gpus=4), ("resources", "gpus")),
    (RayLauncher(), Resources(nodes=2, gpus=4, gpus_per_node=2), ("resources", "gpus")),
    (TorchrunLauncher(nproc_per_node=2), Resources(gpus_per_task=1), ("launcher", "nproc_per_node")),
    (TorchrunLauncher(), Resources(gpus_per_node=2, gpus_per_task=1), ("resources", "gpus_per_task")),
    (RayLauncher(), Resources(nodes=2, gres="gpu:2", gpus_per_task=1), ("resources", "gpus_per_task")),
    (TorchrunLauncher(), Resources(gpus=4, ntasks_per_gpu=1), ("resources", "ntasks_per_gpu")),
    (RayLauncher(), Resources(gpus_per_node=4, ntasks_per_gpu=1), ("resources", "ntasks_per_gpu")),
]


@pytest.mark.parametrize(("launcher", "resources", "path"), DISAGREEMENTS)
def test_resources_that_do_not_fit_are_told(
    launcher: LauncherSpec, resources: Resources, path: tuple[str, str]
):
    assert [found for found, _ in launcher.disagreements(resources)] == [path]


@pytest.mark.parametrize(
    ("launcher", "resources"),
    [
        (TorchrunLauncher(nproc_per_node=4), Resources(nodes=2, gpus_per_node=4)),
        (TorchrunLauncher(nproc_per_node="gpu"), Resources(nodes=2, gres="gpu:a100:2")),
        (TorchrunLauncher(nproc_per_node=8), Resources(nodes=2, ntasks=2, cpus_per_task=8)),
        (TorchrunLauncher(nnodes="1:4"), Resources(nodes="1-4")),
        (RayLauncher(address="10.1.2.3:6379"), Resources(ntasks_per_node=2)),
        (SrunLauncher(), Resources(ntasks=64)),
        (TorchrunLauncher(nproc_per_node="gpu"), Resources(gpus="a100:4")),
        (TorchrunLauncher(nproc_per_node=2), Resources(nodes=2, gpus_per_task=2)),
        (TorchrunLauncher(nproc_per_node=2), Resources(nodes=2, gpus_per_node=2, gpus_per_task=2)),
        (RayLauncher(), Resources(nodes=2, gpus_per_task="a100:2")),
        (RayLauncher(), Resources(nodes=1, gpus=4)),
        (SrunLauncher(), Resources(nodes=1, ntasks=4, gpus=4)),
        (SrunLauncher(), Resources(nodes=2, ntasks=8, gpus=8)),  # whole nodes: Slurm has no choice
        (SrunLauncher(), Resources(nodes=2, gpus=4, ntasks_per_gpu=1)),
        (SrunLauncher(), Resources(nodes=2, ntasks=4, gpus=4, gpus_per_task=1)),
        (SrunLauncher(), Resources(nodes=2, ntasks_per_node=2, gres="gpu:a100:2")),
        (BashLauncher(), Resources(nodes=2, gpus=4)),
    ],
)
def test_resources_that_fit_are_not_complained_about(launcher: LauncherSpec, resources: Resources):
    assert list(launcher.disagreements(resources)) == []


class TwiceLauncher(LauncherSpec):
    """A launcher as another package would bring it."""

    type: Literal["twice"] = "twice"
    script: str = 'shift; "$@" && "$@"\n'

    def plan(self, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
        return LaunchPlan(script=self.script, payload=payload, options=("--",) if self.script == "" else ())


class PlanlessLauncher(LauncherSpec):
    """A launcher whose author forgot the planner."""

    type: Literal["planless"] = "planless"


CONTEXT = LaunchContext(Resources(), "process")


def test_a_launcher_of_another_package_plans_itself():
    assert plan(TwiceLauncher(), ("true",), CONTEXT).script == 'shift; "$@" && "$@"\n'


def test_a_launcher_without_a_planner_is_told_what_is_missing():
    with pytest.raises(DagsterSlurmError, match="no method `plan`"):
        plan(PlanlessLauncher(), ("true",), CONTEXT)


def test_an_option_must_not_look_like_the_end_of_the_options():
    with pytest.raises(DagsterSlurmError, match="exactly `--`"):
        plan(TwiceLauncher(script=""), ("true",), CONTEXT)
