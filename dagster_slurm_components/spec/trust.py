"""Whose files are obeyed: a profile, an included script or ``.env`` runs commands as whoever reads it."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from dagster_slurm_components.spec.problems import Problem, SpecError

_TMP = stat.S_ISVTX | stat.S_IWOTH
_OF_DAGSTER = re.compile(rb"^\s*\[tool\.(dg|dagster)\b", re.MULTILINE)


def upwards(start: Path) -> Iterator[Path]:
    """Yield a folder and those above it in which its project may lie: up to the root of a repository or of a project.

    Folders of other users, and those for everybody such as ``/tmp``, are none of them: whoever lays a ``profiles/``
    there would run commands as whoever works below.
    """
    start = next((folder for folder in (start, *start.parents) if folder.is_dir()), start)
    owners = _owners(start)
    for folder in (start, *start.parents):
        facts = folder.stat()
        if folder != start and (facts.st_uid not in owners or facts.st_mode & _TMP == _TMP):
            return
        yield folder
        if (folder / ".git").exists() or _is_project(folder):
            return


def _is_project(folder: Path) -> bool:
    # The project of a payload's environment has a pyproject.toml, too.
    file = folder / "pyproject.toml"
    return (folder / "dg.toml").is_file() or (file.is_file() and bool(_OF_DAGSTER.search(file.read_bytes())))


def _owners(folder: Path) -> set[int]:
    # Its owner, too: in a container root works in a folder of the user outside.
    return {os.geteuid(), 0, folder.stat().st_uid}


def check_owner(file: Path, folder: Path) -> None:
    """Raise a SpecError for a file that another user could have written than the owner of its project's folder."""
    facts, mode = file.stat(), folder.stat().st_mode
    # A mount, or a CI system, may give all the same mode; it says nothing then.
    is_open = mode & _TMP == stat.S_IWOTH
    if facts.st_uid not in _owners(folder):
        why = f"it belongs to user {facts.st_uid}, not to you, root or the owner of {folder}"
        hint = "look what it says; a copy of your own will do"
    elif facts.st_mode & stat.S_IWOTH and not is_open:
        why, hint = "everybody may write to it", f"chmod o-w {file}"
    else:
        return
    raise SpecError([Problem(f"{file} is not read, as it may run commands: {why}", hint=hint, kind="owner")])
