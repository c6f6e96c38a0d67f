"""What is wrong with a script's files on this machine: a payload that can't run, an environment without its lock."""

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from dagster_slurm_components.spec.environments import EnvironmentSpec
from dagster_slurm_components.spec.launchers import LANGUAGES, BashLauncher, one_gpu_by
from dagster_slurm_components.spec.merge import Merged
from dagster_slurm_components.spec.place import KeyPath
from dagster_slurm_components.spec.problems import Problem
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.templates import is_template

_BEGIN = 64 * 1024
_MARK = b"\xef\xbb\xbf"
_OF_SHELLS = re.compile(r"\$(?:[A-Z_][A-Z0-9_]*|\{[A-Z_][A-Z0-9_]*\})")
_BY_LOCAL_RANK = re.compile(rb"\b(?:LOCAL_RANK|SLURM_LOCALID)\b")
_LONGEST_WORD = 128 * 1024
"""Bytes of an argument, or of a variable with its name, with the NUL after it (Linux, MAX_ARG_STRLEN)."""


def payload_file(merged: Merged) -> Path | None:
    """Return a script's payload file, absolute; nothing for a command, or where a template names it."""
    written = merged.data.get("payload")
    if not isinstance(written, str) or is_template(written) or "\0" in written:
        return None
    return Path(os.path.abspath(merged.folder(("payload",)) / written))


def payload_problems(script: Script, merged: Merged) -> Iterator[Problem]:
    """Yield why a payload would not run as it was meant: its variables, its arguments, its file if that is there."""
    words: list[tuple[KeyPath, str, str]] = [
        (("env", name), f"{name}=", text) for name, text in script.env.items()
    ]
    words += [(("args", index), "", text) for index, text in enumerate(script.args)]
    words += [(("command", index), "", text) for index, text in enumerate(script.command or ())]
    for path, name, text in words:
        size = len(f"{name}{text}".encode())
        if size >= _LONGEST_WORD:
            message = f"{size} bytes, and Linux starts no program with a longer one than {_LONGEST_WORD - 1}"
            yield Problem.at(merged.position, path, message, "write it into one of `files`", "too_long")
        if name and (found := _OF_SHELLS.search(text)):
            message = f"the payload would find {found[0]} as it is written: no shell reads `env`"
            hint = f"set it in the payload: export {name}..."
            yield Problem.at(merged.position, path, message, hint, "shell_variable", level="warning")
    file = payload_file(merged)
    if file is not None and file.is_file():
        yield from _file_problems(file, script, partial(Problem.at, merged.position, ("payload",)))


def device_problems(script: Script, merged: Merged) -> Iterator[Problem]:
    """Yield a payload that counts GPUs by its rank on the node, where Slurm shows each rank one: its device 0."""
    by, file = one_gpu_by(script.launcher, script.resources), payload_file(merged)
    text = " ".join(script.command or ()).encode()
    if by and file is not None and file.is_file():
        with file.open("rb") as stream:
            text = stream.read(_BEGIN)
    # Who takes the rank modulo the number of devices is right in any case.
    if by and (found := _BY_LOCAL_RANK.search(text)) and b"device_count" not in text:
        message = f"by `{by}` each rank sees one GPU, as device 0, while {found[0].decode()} counts on"
        hint = "let the payload take device 0; or show each rank all GPUs of its node: `gpus_per_node` alone"
        where = ("payload",) if "payload" in merged.data else ("command",)
        yield Problem.at(merged.position, where, message, hint, "one_gpu", level="warning")


def _file_problems(file: Path, script: Script, problem: Callable[..., Problem]) -> Iterator[Problem]:
    interpreter = script.launcher.interpreter if isinstance(script.launcher, BashLauncher) else None
    by_itself = not interpreter and file.suffix not in LANGUAGES
    if by_itself and not os.access(file, os.X_OK):
        message = f"{file.name} is run by itself, and is not executable"
        hint = f"chmod +x {file}; or name its program: `launcher: {{type: bash, interpreter: [...]}}`"
        yield problem(message, hint, "not_executable")
    with file.open("rb") as stream:
        begin = stream.read(_BEGIN)
    if not (
        LANGUAGES.get(file.suffix) == "bash" or (by_itself and begin.removeprefix(_MARK).startswith(b"#!"))
    ):
        return
    if b"\r\n" in begin:
        message = f"{file.name} has Windows line endings, which a shell reads as part of its words"
        hint = f"sed -i 's/\\r$//' {file}; to keep them away: `*.sh text eol=lf` in .gitattributes"
        yield problem(message, hint, "line_endings")
    if begin.startswith(_MARK):
        message = f"{file.name} begins with a byte order mark, which a shell reads as part of its first word"
        yield problem(message, f"sed -i '1s/^\\xEF\\xBB\\xBF//' {file}", "byte_order_mark")


def environment_problems(environment: EnvironmentSpec, merged: Merged) -> Iterator[Problem]:
    """Yield the files that an environment is made of and that are not there."""
    for field, lock in environment.made_of:
        named, path = getattr(environment, field), ("environment", field)
        if named is None or is_template(named):
            continue
        place = (merged.folder(path) / Path(named).expanduser()).absolute()
        if not place.exists():
            message = f"the environment's `{field}` is not there: {place}"
            yield Problem.at(merged.position, path, message, "check the spelling", "no_file")
        elif not (place / lock).exists():
            message = f"there is no {lock} in {place} to make the environment of"
            hint = f"run `{lock.removesuffix('.lock')} lock` there"
            yield Problem.at(merged.position, path, message, hint, "no_lock", level="warning")
