"""What every launcher produces: one static shell file and its positional arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dagster_slurm_components.spec.resources import Resources

PYTHON = "@python"
"""Stands in a payload's argument list for the interpreter of the activated environment.

Only the job knows that path, so ``launch.sh`` replaces it by ``$DAGSTER_SLURM_PYTHON``.
"""


@dataclass(frozen=True)
class LaunchPlan:
    """How a payload starts inside the job.

    The plan becomes two files in the run directory: ``launch.sh`` (``script``, byte for byte as shipped) and
    ``launch.args`` (``options``, then ``--``, then ``payload``, each ended by a NUL byte). ``job.sh`` runs
    ``bash launch.sh OPTIONS... -- PAYLOAD...`` in the payload folder, with ``job.env`` and the environment
    already loaded. Nothing of it is ever parsed by a shell.

    Attributes:
        script: Text of the static shell file.
        options: Launcher options; none of them is exactly ``--``.
        payload: The payload's argument list; the first may be ``PYTHON``.
        env: Extra environment variables; a value the user set wins.
        sbatch: Extra sbatch options the launcher needs, as sbatch spells them (``ntasks-per-node`` for torchrun);
            a value the user set wins.
        files: Extra static files for the run directory, by relative path.
    """

    script: str
    payload: tuple[str, ...]
    options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    sbatch: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def arguments(self) -> bytes:
        """Return the content of ``launch.args``."""
        return b"".join(
            part.encode("utf-8", "surrogateescape") + b"\0" for part in (*self.options, "--", *self.payload)
        )


@dataclass(frozen=True)
class LaunchContext:
    """What a planner may know of the job.

    Attributes:
        resources: What the job asks for.
        scheduler: Who runs it; under ``process`` there are no SLURM_* variables and no srun.
    """

    resources: Resources
    scheduler: Literal["process", "slurm"]
