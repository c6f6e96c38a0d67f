"""The `ray` launcher: a Ray cluster of the job's own, made of exactly what the job was given."""

from __future__ import annotations

from dagster_slurm_components.launchers.base import LaunchContext, LaunchPlan
from dagster_slurm_components.launchers.shipped import SUPERVISION, programs, shell
from dagster_slurm_components.spec.launchers import RayLauncher
from dagster_slurm_components.spec.slurm_values import memory_megabytes

_PROGRAMS = ("launch_ray.py", "ray_node.py", "ray_wait.py", "nodes.py", "ports.py", *SUPERVISION)


def plan_ray(launcher: RayLauncher, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    """Return how the payload starts: once, on the head of a cluster started for it.

    With ``address`` nothing is started: the payload finds that cluster in RAY_ADDRESS.
    """
    if launcher.address is not None:
        return LaunchPlan(
            script=shell("launch_bash.sh"), payload=payload, env={"RAY_ADDRESS": launcher.address}
        )
    options = [f"--start-timeout={launcher.start_timeout}", f"--grace={launcher.grace}"]
    if launcher.host_suffix:
        options.append(f"--host-suffix={launcher.host_suffix}")
    if not launcher.dashboard:
        options.append("--no-dashboard")
    if launcher.object_store_memory is not None:
        options.append(f"--object-store-memory={int(memory_megabytes(launcher.object_store_memory) * 2**20)}")
    if context.scheduler == "process" and context.resources.cpus_per_task is not None:
        options.append(f"--cpus={context.resources.cpus_per_task}")
    options += [f"--start-arg={argument}" for argument in launcher.ray_start_args]
    return LaunchPlan(
        script=shell("launch_python.sh"),
        payload=payload,
        options=("launch_ray.py", *options),
        sbatch={"ntasks-per-node": "1"},
        files=programs(*_PROGRAMS),
    )
