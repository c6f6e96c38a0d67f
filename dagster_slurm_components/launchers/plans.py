"""The planners of the shipped launchers; their static files travel to the run directory byte for byte."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from dagster_slurm_components.launchers.base import LaunchContext, LaunchPlan
from dagster_slurm_components.spec.launchers import BashLauncher, RayLauncher, SrunLauncher, TorchrunLauncher
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.slurm_values import memory_megabytes

_HERE = Path(__file__).parent
_SHARED = ("command_line.py", "processes.py", "records.py", "rank.py")
"""What every launcher with several processes needs."""


@cache
def _text(path: str) -> str:
    return (_HERE / path).read_text(encoding="utf-8")


def _programs(*names: str) -> dict[str, str]:
    """Return the Python files that run inside the job, by their path in the run directory."""
    return {f"launch/{name}": _text(f"job/{name}") for name in (*names, *_SHARED)}


def _options(spec: object, *names: str) -> list[str]:
    """Return options as programs write them, of those attributes of a spec that are set."""
    values = {name: getattr(spec, name) for name in names}
    return [
        f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value not in (None, "")
    ]


def plan_bash(launcher: BashLauncher, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    """Start the payload once, as a plain process on the job's first node."""
    return LaunchPlan(script=_text("shell/launch_bash.sh"), payload=payload)


def plan_srun(launcher: SrunLauncher, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    """Start one process for each task, as MPI programs are: by srun, or as plain ones where there is no Slurm."""
    if context.scheduler == "slurm":
        program = "launch_srun.py"
        own = [f"--srun={option}" for option in _srun_options(launcher, context.resources)]
    else:
        program = "launch_local_ranks.py"
        own = [f"--tasks={launcher.local_tasks}"]
    return LaunchPlan(
        script=_text("shell/launch_python.sh"),
        payload=payload,
        options=(program, *_options(launcher, "output", "grace"), *own),
        files=_programs(program),
    )


def _srun_options(launcher: SrunLauncher, resources: Resources) -> list[str]:
    """Return srun's own options.

    What shapes the step is said again, for srun takes what is not said from the job's variables: SLURM_NTASKS,
    and SLURM_EXPORT_ENV. Since Slurm 22.05 it does not take over --cpus-per-task at all.
    """
    tasks, nodes = resources.ntasks, str(resources.nodes or 1)
    if tasks is None and resources.ntasks_per_node is not None and nodes.isdigit():
        tasks = int(nodes) * resources.ntasks_per_node
    extra = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in launcher.options.items()
        if value is not False
    ]
    return [
        "--kill-on-bad-exit=1",
        "--export=ALL",
        *([f"--ntasks={tasks}"] if tasks is not None else []),
        *_options(resources, "ntasks_per_node", "cpus_per_task"),
        *_options(launcher, "mpi", "cpu_bind", "mem_bind", "distribution", "hint"),
        *extra,
    ]


def plan_torchrun(launcher: TorchrunLauncher, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    """Start PyTorch's own elastic agent on each node; without Slurm, one on this machine."""
    names = (
        "nproc_per_node",
        "max_restarts",
        "rendezvous_timeout",
        "output",
        "grace",
        "nnodes",
        "host_suffix",
    )
    return LaunchPlan(
        script=_text("shell/launch_python.sh"),
        payload=payload,
        options=("launch_torchrun.py", *_options(launcher, *names)),
        sbatch={"ntasks-per-node": "1"},
        files=_programs("launch_torchrun.py", "nodes.py", "ports.py"),
    )


def plan_ray(launcher: RayLauncher, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    """Start the payload once, on the head of a Ray cluster of the job's own, made of what the job was given.

    With ``address`` nothing is started: the payload finds that cluster in RAY_ADDRESS.
    """
    if launcher.address is not None:
        env = {"RAY_ADDRESS": launcher.address}
        return LaunchPlan(script=_text("shell/launch_bash.sh"), payload=payload, env=env)
    options = _options(launcher, "start_timeout", "grace", "host_suffix")
    if not launcher.dashboard:
        options.append("--no-dashboard")
    if launcher.object_store_memory is not None:
        options.append(f"--object-store-memory={int(memory_megabytes(launcher.object_store_memory) * 2**20)}")
    if context.scheduler == "process" and context.resources.cpus_per_task is not None:
        options.append(f"--cpus={context.resources.cpus_per_task}")
    options += [f"--start-arg={argument}" for argument in launcher.ray_start_args]
    return LaunchPlan(
        script=_text("shell/launch_python.sh"),
        payload=payload,
        options=("launch_ray.py", *options),
        sbatch={"ntasks-per-node": "1"},
        files=_programs("launch_ray.py", "ray_node.py", "ray_wait.py", "nodes.py", "ports.py"),
    )
