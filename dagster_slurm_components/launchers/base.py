"""What every launcher takes and produces: a payload's argument list; one static shell file and its arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from dagster_slurm_components.spec.launchers import LANGUAGES
from dagster_slurm_components.spec.resources import Resources

PYTHON = "@python"
"""Stands in a payload's argument list for the activated environment's interpreter, which only the job knows."""


@dataclass(frozen=True)
class LaunchPlan:
    """How a payload starts inside the job.

    ``job.sh`` runs ``bash launch.sh OPTIONS... -- PAYLOAD...`` in the payload folder, with ``job.env`` and the
    environment already loaded. Nothing of it is ever parsed by a shell.

    Attributes:
        script: Text of the static shell file, which becomes ``launch.sh``.
        options: Launcher options; none of them is exactly ``--``.
        payload: The payload's argument list; the first may be ``PYTHON``.
        env: Extra environment variables; a value the user set wins.
        sbatch: Extra sbatch options, as sbatch spells them (``ntasks-per-node``); a value the user set wins.
        files: Extra static files for the run directory, by relative path.
    """

    script: str
    payload: tuple[str, ...]
    options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    sbatch: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def arguments(self) -> bytes:
        """Return the content of ``launch.args``: each argument ended by a NUL byte."""
        words = (*self.options, "--", *self.payload)
        return b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words)


@dataclass(frozen=True)
class LaunchContext:
    """What a planner may know of the job.

    Attributes:
        resources: What the job asks for.
        scheduler: Who runs it; under ``process`` there are no SLURM_* variables and no srun.
        wrapper: Start of a command line that runs the rest of it in the environment's container; empty without one.
            The payload begins with it already.
        python: The payload's Python: ``PYTHON``, or its name inside of the container.
        by_step: Whether the container is one of an srun step, by a plugin of srun: there are none inside a step.
    """

    resources: Resources
    scheduler: Literal["process", "slurm"]
    wrapper: tuple[str, ...] = ()
    python: str = PYTHON
    by_step: bool = False

    def inside(self) -> list[str]:
        """Return what the launchers' own programs are told of the container."""
        if not self.wrapper:
            return []
        return [*(f"--inside={word}" for word in self.wrapper), f"--python={self.python}"]


NOTEBOOK_PROGRAM = "run_notebook.py"
"""Runs a notebook; it lies in the run directory's ``launch/``, beside the payload folder."""
_PROGRAMS = {
    "python": (PYTHON,),
    "bash": ("bash",),
    "r": ("Rscript",),
    "julia": ("julia",),
    "jupyter": (PYTHON, f"../launch/{NOTEBOOK_PROGRAM}"),
}
INTERPRETERS = {extension: _PROGRAMS[language] for extension, language in LANGUAGES.items()}
"""What runs a payload file, by extension; any other file is a program of its own."""


def payload_argv(
    payload: str | None,
    command: Sequence[str] | None,
    args: Sequence[str],
    interpreter: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Return the argument list of a payload file, or of a command instead, as it runs inside the payload folder.

    ``interpreter`` runs the file, instead of the choice by extension. Raises ValueError if not exactly one of
    ``payload`` and ``command`` is given.

    Example:
        >>> payload_argv("train.py", None, ["--epochs", "3"])
        ('@python', 'train.py', '--epochs', '3')
        >>> payload_argv("solve", None, [])
        ('./solve',)
    """
    if (payload is None) == (command is None):
        raise ValueError("exactly one of payload and command is needed")
    if payload is None:
        return (*(command or ()), *args)
    runner = tuple(interpreter) if interpreter else INTERPRETERS.get(PurePosixPath(payload).suffix, ())
    # A bare name would be searched in PATH, and one that starts with a dash be taken for an option.
    path = payload if payload.startswith("/") or (runner and not payload.startswith("-")) else f"./{payload}"
    return (*runner, path, *args)
