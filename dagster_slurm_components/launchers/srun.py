"""The `srun` launcher: one process for each task, as MPI programs are started."""

from __future__ import annotations

from dagster_slurm_components.launchers.base import LaunchContext, LaunchPlan
from dagster_slurm_components.launchers.shipped import SUPERVISION, programs, shell
from dagster_slurm_components.spec.launchers import SrunLauncher
from dagster_slurm_components.spec.resources import Resources


def plan_srun(launcher: SrunLauncher, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    """Return how the payload starts: by srun, or as plain processes where there is no Slurm."""
    common = (f"--output={launcher.output}", f"--grace={launcher.grace}")
    if context.scheduler == "slurm":
        program = "launch_srun.py"
        own = tuple(f"--srun={option}" for option in srun_options(launcher, context.resources))
    else:
        program = "launch_local_ranks.py"
        own = (f"--tasks={launcher.local_tasks}",)
    return LaunchPlan(
        script=shell("launch_python.sh"),
        payload=payload,
        options=(program, *common, *own),
        files=programs(program, *SUPERVISION),
    )


def srun_options(launcher: SrunLauncher, resources: Resources) -> tuple[str, ...]:
    """Return srun's own options.

    What shapes the step is said again, for srun takes what is not said from the job's variables: SLURM_NTASKS,
    and SLURM_EXPORT_ENV. Since Slurm 22.05 it does not take over --cpus-per-task at all.
    """
    options = ["--kill-on-bad-exit=1", "--export=ALL"]
    tasks = _tasks(resources)
    if tasks is not None:
        options.append(f"--ntasks={tasks}")
    for name in ("ntasks_per_node", "cpus_per_task"):
        value = getattr(resources, name)
        if value is not None:
            options.append(f"--{name.replace('_', '-')}={value}")
    for name in ("mpi", "cpu_bind", "mem_bind", "distribution", "hint"):
        value = getattr(launcher, name)
        if value is not None:
            options.append(f"--{name.replace('_', '-')}={value}")
    for name, value in launcher.options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            options.append(flag)
        elif value is not False:
            options.append(f"{flag}={value}")
    return tuple(options)


def _tasks(resources: Resources) -> int | None:
    """Return the number of tasks, where it is known before the job runs."""
    if resources.ntasks is not None:
        return resources.ntasks
    nodes = str(resources.nodes or 1)
    if resources.ntasks_per_node is not None and nodes.isdigit():
        return int(nodes) * resources.ntasks_per_node
    return None
