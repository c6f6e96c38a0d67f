"""The `torchrun` launcher: PyTorch's own elastic agent on each node."""

from __future__ import annotations

from dagster_slurm_components.launchers.base import LaunchContext, LaunchPlan
from dagster_slurm_components.launchers.shipped import SUPERVISION, programs, shell
from dagster_slurm_components.spec.launchers import TorchrunLauncher

_PROGRAMS = ("launch_torchrun.py", "torchrun_node.py", "nodes.py", "ports.py", *SUPERVISION)


def plan_torchrun(launcher: TorchrunLauncher, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    """Return how the payload starts: one agent on each node; without Slurm, one on this machine."""
    options = [
        f"--nproc-per-node={launcher.nproc_per_node}",
        f"--max-restarts={launcher.max_restarts}",
        f"--rendezvous-timeout={launcher.rendezvous_timeout}",
        f"--output={launcher.output}",
        f"--grace={launcher.grace}",
    ]
    if launcher.nnodes is not None:
        options.append(f"--nnodes={launcher.nnodes}")
    if launcher.host_suffix:
        options.append(f"--host-suffix={launcher.host_suffix}")
    return LaunchPlan(
        script=shell("launch_python.sh"),
        payload=payload,
        options=("launch_torchrun.py", *options),
        sbatch={"ntasks-per-node": "1"},
        files=programs(*_PROGRAMS),
    )
