"""How a payload is run: by its file name's extension, or as the command that the user wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from dagster_slurm_components.launchers.base import PYTHON

INTERPRETERS: dict[str, tuple[str, ...]] = {
    ".py": (PYTHON,),
    ".sh": ("bash",),
    ".R": ("Rscript",),
    ".r": ("Rscript",),
    ".jl": ("julia",),
}
"""What runs a payload file, by extension; any other file is a program of its own."""


def payload_argv(
    payload: str | None,
    command: Sequence[str] | None,
    args: Sequence[str],
    interpreter: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Return the payload's argument list, as it runs inside the payload folder.

    Args:
        payload: Path of the payload file inside the payload folder, or None.
        command: The command the user wrote instead of a payload file, or None.
        args: The payload's own arguments, appended to either.
        interpreter: What runs the payload file, instead of the choice by extension.

    Raises:
        ValueError: Not exactly one of ``payload`` and ``command`` is given.

    Example:
        >>> payload_argv("train.py", None, ["--epochs", "3"])
        ('@python', 'train.py', '--epochs', '3')
        >>> payload_argv("solve", None, [])
        ('./solve',)
    """
    if (payload is None) == (command is None):
        raise ValueError("exactly one of payload and command is needed")
    if command is not None:
        return (*command, *args)
    assert payload is not None  # noqa: S101 - tells mypy what the check above has settled
    runner = tuple(interpreter) if interpreter else INTERPRETERS.get(PurePosixPath(payload).suffix, ())
    # A bare name would be searched in PATH, and one that starts with a dash be taken for an option.
    path = payload if payload.startswith("/") or (runner and not payload.startswith("-")) else f"./{payload}"
    return (*runner, path, *args)
