r"""The ``#SBATCH`` header: the only text this package renders into a job script.

How sbatch reads such a line (``src/sbatch/opt.c``, 20.11 to 25.11 alike) decides how it is written here:

* White space ends an argument and an unquoted ``#`` starts a comment, but neither does inside quotes.
* Single and double quotes are the same, and a backslash takes the next character literally *inside both*. So
  only ``\`` and ``"`` need a backslash within double quotes; everything else, ``$`` and ``%`` included,
  stands for itself.
* Only a line feed ends a line; there is no way to write one. Bytes above 127 pass unchanged.
* Until 20.11 a line with ``hetjob`` or ``packjob`` *anywhere* in it, in any case, separates the components of
  a heterogeneous job: a job named so would lose its options. A backslash inside the word hides it.
"""

import re
import unicodedata
from collections.abc import Sequence

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.resources import FLAGS

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_SEPARATOR = re.compile(r"(het|pack)(job)", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./\[\]()*-]*")


def render_header(options: Sequence[tuple[str, str]]) -> str:
    r"""Render the first lines of a job script.

    Example:
        >>> print(render_header([("job-name", "digits \"v2\""), ("nodes", "2"), ("requeue", "")]), end="")
        #!/bin/bash
        #SBATCH --job-name="digits \"v2\""
        #SBATCH --nodes=2
        #SBATCH --requeue

    The options are sbatch's long names and their values (``check_option``), in the order to write them. An empty value
    stands for an option that needs none.
    """
    lines = ["#!/bin/bash"]
    for name, value in options:
        check_option(name, value)
        lines.append(f"#SBATCH --{name}={_quote(value)}" if value else f"#SBATCH --{name}")
    return "\n".join(lines) + "\n"


def command_line(options: Sequence[tuple[str, str]]) -> list[str]:
    """Return the same options as arguments for the command line, where nothing needs quoting; errors as there."""
    for name, value in options:
        check_option(name, value)
    return [f"--{name}={value}" if value else f"--{name}" for name, value in options]


def check_option(name: str, value: str) -> None:
    """Raise DagsterSlurmError for a name that is no long option, a missing value, and control characters in a value.

    Line and paragraph separators are refused with them: sbatch would take them, but no person reading the
    script (nor Python's ``splitlines``) would see one line.
    """
    if not _NAME.fullmatch(name):
        raise DagsterSlurmError(f"{name!r} is no long option of sbatch.")
    if not value and name not in FLAGS:
        raise DagsterSlurmError(f"--{name} needs a value.", hint="Leave the option out, or give it one.")
    for index, character in enumerate(value):
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}:
            raise DagsterSlurmError(
                f"The value of --{name} holds the character {character!r} at position {index + 1}.",
                hint="An #SBATCH line can't carry line breaks, tabs or other control characters: remove it.",
            )


def escape_pattern(path: str) -> str:
    r"""Escape a path for ``--output``, ``--error`` and ``--input``, so that Slurm opens exactly that path.

    Slurm replaces ``%j``, ``%x`` and so on in these patterns, and reads ``%%`` as ``%``. One backslash
    anywhere switches that off for the whole pattern and is itself removed (``remove_path_slashes`` in
    slurmd), so a path with a backslash needs the opposite: ``\\`` for each and ``%`` left alone. Give
    absolute paths: the backslash form of a relative path loses the ``/`` before it in Slurm 20.11.

    Example:
        >>> escape_pattern("/scratch/50%done/out.log")
        '/scratch/50%%done/out.log'
    """
    if "\\" in path:
        return path.replace("\\", "\\\\")
    return path.replace("%", "%%")


def _quote(value: str) -> str:
    """Write a value so that sbatch reads it back exactly."""
    if _PLAIN.fullmatch(value) and not _SEPARATOR.search(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + _SEPARATOR.sub(r"\1\\\2", escaped) + '"'
