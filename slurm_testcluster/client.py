"""Run a Slurm program for one cluster."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from slurm_testcluster.layout import ClusterError, Layout
from slurm_testcluster.packages import find_program


def run_program(
    layout: Layout, argv: Sequence[str], *, check: bool = True, timeout: float = 30, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a Slurm program with SLURM_CONF set.

    Args:
        layout: The cluster.
        argv: The command line, such as ``["scontrol", "show", "nodes"]``.
        check: Whether a non-zero exit status is an error.
        timeout: Seconds.
        stdin: What it reads from its input.

    Raises:
        ClusterError: It ended with another exit status than 0, and ``check`` is set.
        subprocess.TimeoutExpired: It took too long.
    """
    # A caller inside a job, or with settings for another cluster, must not redirect these programs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    completed = subprocess.run(
        [find_program(argv[0]), *argv[1:]],
        env={**environment, "SLURM_CONF": str(layout.slurm_conf)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and completed.returncode != 0:
        raise ClusterError(
            f"{' '.join(argv)} ended with exit status {completed.returncode}: {completed.stderr.strip()}",
            where=str(layout.folder),
        )
    return completed


_FOREIGN = ("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SINFO_", "SACCT_", "SCANCEL_")
