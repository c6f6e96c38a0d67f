"""The argument lists of Slurm's query programs.

Slurm reads options from variables too: ``SBATCH_PARTITION`` even beats a script's ``#SBATCH`` lines, and
``SQUEUE_PARTITION`` in somebody's ``.bashrc`` would hide running jobs. The satellite therefore runs every command in
an environment free of them, with ``SLURM_TIME_FORMAT=%s``: all times here are seconds since 1970, in no time zone.
"""

from __future__ import annotations

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.slurm.ids import is_cluster


def query(program: str, *args: str, cluster: str | None = None) -> list[str]:
    """Return the argument list of one of Slurm's query programs.

    Args:
        program: ``squeue``, ``sacct``, ``scontrol`` or ``scancel``.
        args: Its arguments.
        cluster: The cluster to ask, where the job's id came with one (``id;cluster``).

    Raises:
        DagsterSlurmError: ``cluster`` can be no cluster's name.
    """
    if cluster is None:
        return [program, *args]
    if not is_cluster(cluster):
        raise DagsterSlurmError(f"{cluster!r} is no name of a Slurm cluster.")
    return [program, f"--clusters={cluster}", *args]
