"""What Slurm's programs would take from the user's environment, and how each command is freed of it.

Slurm reads its options from variables too. ``SBATCH_PARTITION`` even beats the script's ``#SBATCH`` lines,
and ``SQUEUE_PARTITION`` or ``SCANCEL_BATCH`` in somebody's ``.bashrc`` would hide running jobs or signal only
half of one. So each query starts with ``env -u NAME ...`` for exactly the variables its program reads, and
carries its time format as ``SLURM_TIME_FORMAT``: the argument list alone says what is asked, whoever runs it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import DagsterSlurmError
from .ids import is_cluster

ENVIRONMENT: dict[str, str] = {"SLURM_TIME_FORMAT": "%s"}
"""Set for every command here: Slurm then prints times as seconds since 1970, in no time zone."""

_EVERYWHERE = ("SLURM_CLUSTERS",)
_READS = {
    "squeue": (
        *("SQUEUE_ACCOUNT", "SQUEUE_ARRAY", "SQUEUE_ARRAY_UNIQUE", "SQUEUE_FEDERATION", "SQUEUE_FORMAT"),
        *("SQUEUE_FORMAT2", "SQUEUE_LICENSES", "SQUEUE_LOCAL", "SQUEUE_NAMES", "SQUEUE_PARTITION"),
        *("SQUEUE_PRIORITY", "SQUEUE_QOS", "SQUEUE_SIB", "SQUEUE_SIBLING", "SQUEUE_SORT", "SQUEUE_STATES"),
        *("SQUEUE_USERS", "SLURM_BITSTR_LEN"),
    ),
    "sacct": ("SACCT_FEDERATION", "SACCT_FORMAT", "SACCT_LOCAL"),
    "scontrol": (
        *("SCONTROL_ALL", "SCONTROL_FEDERATION", "SCONTROL_FUTURE", "SCONTROL_LOCAL", "SCONTROL_SIB"),
        "SCONTROL_SIBLING",
    ),
    "scancel": (
        *(
            "SCANCEL_ACCOUNT",
            "SCANCEL_BATCH",
            "SCANCEL_CRON",
            "SCANCEL_CTLD",
            "SCANCEL_FULL",
            "SCANCEL_HURRY",
        ),
        *("SCANCEL_INTERACTIVE", "SCANCEL_NAME", "SCANCEL_PARTITION", "SCANCEL_QOS", "SCANCEL_STATE"),
        *("SCANCEL_USER", "SCANCEL_VERBOSE", "SCANCEL_WCKEY"),
    ),
}

_PREFIXES = ("SBATCH_", "SALLOC_", "SRUN_", "SLURM_", "SLURMD_", "SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_")
_KEPT = frozenset({"SLURM_CONF", "SLURM_JWT", "SLURM_JWT_PATH"})


def foreign_variables(names: Iterable[str]) -> tuple[str, ...]:
    """Pick the variables that must not reach ``sbatch``, sorted.

    That is every variable of Slurm's but the few that say where the cluster is. ``SBATCH_*`` would change the
    job behind the script's back; ``SLURM_*`` of a job that Dagster itself runs in would leak into the new
    job, where srun and MPI take it for their own.

    Args:
        names: The names of all variables of the process that will start sbatch.
    """
    return tuple(sorted(name for name in names if name.startswith(_PREFIXES) and name not in _KEPT))


def query(program: str, *args: str, cluster: str | None = None) -> list[str]:
    """Return the argument list of one of Slurm's query programs, freed of the user's environment.

    Args:
        program: ``squeue``, ``sacct``, ``scontrol`` or ``scancel``.
        args: Its arguments.
        cluster: The cluster to ask, where the job's id came with one (``id;cluster``).

    Raises:
        DagsterSlurmError: ``cluster`` can be no cluster's name.
    """
    if cluster is not None:
        if not is_cluster(cluster):
            raise DagsterSlurmError(f"{cluster!r} is no name of a Slurm cluster.")
        args = (f"--clusters={cluster}", *args)
    return [*without(*_EVERYWHERE, *_READS[program]), program, *args]


def without(*names: str) -> list[str]:
    """Return the words that start a program without these variables and with ``ENVIRONMENT``."""
    unset = [word for name in names for word in ("-u", name)]
    return ["env", *unset, *(f"{name}={value}" for name, value in ENVIRONMENT.items())]
