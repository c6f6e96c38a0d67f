"""Submit a job: ``sbatch``. Its answer is read where it runs: ``satellite.submission``."""

from __future__ import annotations

from collections.abc import Sequence

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.slurm.header import command_line


def sbatch(
    script: str,
    args: Sequence[str] = (),
    *,
    options: Sequence[tuple[str, str]] = (),
) -> list[str]:
    """Return the command that submits a job script.

    Args:
        script: The script's absolute path.
        args: The script's positional arguments.
        options: More options, as for ``header.render_header``; on the command line they beat the script's
            header.

    Raises:
        DagsterSlurmError: ``script`` is no absolute path, or an option can't be written.
    """
    if not script.startswith("/"):
        raise DagsterSlurmError(f"The job script's path {script!r} is not absolute.")
    return ["sbatch", "--parsable", *command_line(options), script, *args]
