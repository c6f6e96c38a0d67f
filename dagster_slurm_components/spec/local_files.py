"""What is wrong with a script's files on this machine: a payload that can't run, an environment without its lock."""

import os
from collections.abc import Iterator
from pathlib import Path

from dagster_slurm_components.spec.environments import EnvironmentSpec
from dagster_slurm_components.spec.launchers import LANGUAGES, BashLauncher
from dagster_slurm_components.spec.merge import Merged
from dagster_slurm_components.spec.problems import Problem
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.templates import is_template

_BEGIN = 64 * 1024


def payload_file(merged: Merged, folder: Path) -> Path | None:
    """Return a script's payload file, absolute; nothing for a command, or where a template names it."""
    written = merged.data.get("payload")
    if not isinstance(written, str) or is_template(written) or "\0" in written:
        return None
    return Path(os.path.abspath((merged.folder(("payload",)) or folder) / written))


def payload_problems(script: Script, merged: Merged, folder: Path) -> Iterator[Problem]:
    """Yield why a payload that is there would not run as it was meant."""
    file = payload_file(merged, folder)
    if file is None or not file.is_file():
        return
    interpreter = script.launcher.interpreter if isinstance(script.launcher, BashLauncher) else None
    by_itself = not interpreter and file.suffix not in LANGUAGES
    if by_itself and not os.access(file, os.X_OK):
        message = f"{file.name} is run by itself, and is not executable"
        hint = f"chmod +x {file}; or name its program: `launcher: {{type: bash, interpreter: [...]}}`"
        yield Problem.at(merged.position, ("payload",), message, hint, "not_executable")
    with file.open("rb") as stream:
        begin = stream.read(_BEGIN)
    if b"\r\n" in begin and (file.suffix == ".sh" or (by_itself and begin.startswith(b"#!"))):
        message = f"{file.name} has Windows line endings, which a shell reads as part of its words"
        hint = f"sed -i 's/\\r$//' {file}; to keep them away: `*.sh text eol=lf` in .gitattributes"
        yield Problem.at(merged.position, ("payload",), message, hint, "line_endings")


def environment_problems(environment: EnvironmentSpec, merged: Merged, folder: Path) -> Iterator[Problem]:
    """Yield the files that an environment is made of and that are not there."""
    for field, lock in environment.made_of:
        named, path = getattr(environment, field), ("environment", field)
        if named is None or is_template(named):
            continue
        place = ((merged.folder(path) or folder) / Path(named).expanduser()).absolute()
        if not place.exists():
            message = f"the environment's `{field}` is not there: {place}"
            yield Problem.at(merged.position, path, message, "check the spelling", "no_file")
        elif not (place / lock).exists():
            message = f"there is no {lock} in {place} to make the environment of"
            hint = f"run `{lock.removesuffix('.lock')} lock` there"
            yield Problem.at(merged.position, path, message, hint, "no_lock", level="warning")
