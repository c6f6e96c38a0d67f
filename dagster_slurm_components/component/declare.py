"""Scripts as they are known before a profile is chosen: validated, named, and with their files found."""

from __future__ import annotations

import hashlib
import keyword
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path as FilePath
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from dagster_slurm_components.spec.component import ScriptEntry
from dagster_slurm_components.spec.merge import Merged
from dagster_slurm_components.spec.place import Path, Position
from dagster_slurm_components.spec.problems import Problem, SpecError, problems_of
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.resolve import ResolvedScript, merge_script
from dagster_slurm_components.spec.rules import intact_part, script_problems
from dagster_slurm_components.spec.script import Script, partial_errors
from dagster_slurm_components.spec.script_checks import CheckedScript, duplicate_assets, duplicate_names

_CHOSEN = ("launcher", "environment")
_NO_PROFILE = Profile()
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_]+")
# Names that Dagster keeps for itself (dagster 1.13, `check_valid_name`).
_TAKEN = frozenset(
    {"context", "conf", "config", "meta", "arg_dict", "dict", "input_arg_dict", "output_arg_dict"}
    | {"int", "str", "float", "bool", "input", "output", "type"}
)


@dataclass(frozen=True)
class DeclaredScript:
    """One script, checked as far as that goes without a profile.

    Attributes:
        entry: The script as written.
        op: The name of its op, unique in the component.
        resolved: The script on top of the component's defaults, in no profile.
        files: The files that travel with it, by their place in the payload folder.
    """

    entry: ScriptEntry
    op: str
    resolved: ResolvedScript
    files: Mapping[PurePosixPath, FilePath]

    @property
    def script(self) -> Script:
        """The validated script."""
        return self.resolved.script

    @property
    def position(self) -> Position | None:
        """Where the script begins."""
        return self.entry.script.position(())


def declare(entries: Sequence[ScriptEntry]) -> tuple[tuple[DeclaredScript, ...], tuple[Problem, ...]]:
    """Check scripts on top of their defaults, and name their ops.

    Returns:
        The scripts that are right, and what is wrong with the others.
    """
    problems: list[Problem] = []
    declared: list[DeclaredScript] = []
    names: set[str] = set()
    for entry in entries:
        try:
            resolved, files = _checked(entry)
        except SpecError as exc:
            problems += exc.problems
            continue
        name = _op_name(resolved.script, names)
        names.add(name)
        declared.append(DeclaredScript(entry, name, resolved, files))
    checked = [CheckedScript(each.entry, each.resolved.merged, each.script) for each in declared]
    problems += [*duplicate_assets(checked), *duplicate_names(checked)]
    return tuple(declared), tuple(problems)


@lru_cache(maxsize=1)
def _nowhere(folder: FilePath) -> LoadedProfile:
    return LoadedProfile("", _NO_PROFILE, (), folder)


def _checked(entry: ScriptEntry) -> tuple[ResolvedScript, Mapping[PurePosixPath, FilePath]]:
    """Validate a script without a profile, and find its files.

    Raises:
        SpecError: With all that is wrong with it.
    """
    nowhere = _nowhere(entry.folder)
    merged = merge_script(profile=nowhere, defaults=entry.defaults, script=entry.script)
    problems = list(_missing_in_profiles(entry))
    try:
        script = _validated(merged.data, merged)
    except SpecError as exc:
        more = [*_missing_payload(entry, merged), *_disagreements(merged, exc.problems)]
        raise SpecError([*problems, *exc.problems, *more]) from None
    resolved = ResolvedScript(script, merged, entry.folder, nowhere)
    files: Mapping[PurePosixPath, FilePath] = {}
    try:
        files = resolved.payload_files()
    except SpecError as exc:
        problems += exc.problems
    problems += script_problems(script, merged.position)
    if problems:
        raise SpecError(problems)
    return resolved, files


def _disagreements(merged: Merged, wrong: Iterable[Problem]) -> Iterator[Problem]:
    """Look for what does not agree in a script that has other mistakes."""
    data, without = intact_part(merged.data, wrong)
    try:
        script = _validated(data, merged)
    except SpecError:
        return
    yield from script_problems(script, merged.position, without=without)


def _validated(data: Mapping[str, Any], merged: Merged) -> Script:
    """Validate merged values, or some of them, save for what a profile may complete."""
    # A launcher without a type may get its type from a profile, so only its fields' names can be checked.
    tree = dict(data)
    open_ended = {
        key: tree.pop(key)
        for key in _CHOSEN
        if isinstance(tree.get(key), Mapping) and "type" not in tree[key]
    }
    problems: list[Problem] = []
    errors = partial_errors(open_ended, _CHOSEN, "a script") if open_ended else []
    if errors:
        problems += problems_of(ValidationError.from_exception_data("script", errors), merged.position)
    try:
        script = Script.model_validate(tree)
    except ValidationError as exc:
        raise SpecError([*problems, *problems_of(exc, merged.position)]) from None
    if problems:
        raise SpecError(problems)
    return script


def _missing_payload(entry: ScriptEntry, merged: Merged) -> Iterator[Problem]:
    """Look for the payload of a script that has other mistakes."""
    payload, path = merged.data.get("payload"), ("payload",)
    layer = merged.source(path)
    folder = layer.folder if layer is not None and layer.folder is not None else entry.folder
    if isinstance(payload, str):
        yield from _missing(folder, payload, path, merged.position(path))


def _missing_in_profiles(entry: ScriptEntry) -> Iterator[Problem]:
    """Look for the payloads that overrides name, for they may be run much later than they are written."""
    overrides = entry.script.data.get("profiles")
    for profile, override in overrides.items() if isinstance(overrides, Mapping) else ():
        payload = override.get("payload") if isinstance(override, Mapping) else None
        if isinstance(payload, str):
            path: Path = ("profiles", profile, "payload")
            yield from _missing(entry.folder, payload, path, entry.script.position(path))


def _missing(folder: FilePath, file: str, path: Path, position: Position | None) -> Iterator[Problem]:
    if "\0" not in file and not (folder / file).exists():
        hint = "check the spelling; relative paths start there"
        yield Problem(f"no file matches {file!r} in {folder}", position, path, hint, "no_file")


def _op_name(script: Script, taken: Set[str]) -> str:
    """Return the name of a script's op: what the user chose, or the first asset's key as Dagster writes it."""
    key = script.assets[0].key
    name = _safe(script.op.name or script.name or key.replace("/", "__"))
    if name not in taken:
        return name
    # Two names may differ only in characters that an op's name can't have.
    return f"{name}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _safe(name: str) -> str:
    """Return a name that Dagster takes for an op.

    >>> _safe("models/résumé-2"), _safe("input")
    ('models_r_sum_2', 'input_')
    """
    safe = _NOT_IN_A_NAME.sub("_", name)
    return f"{safe}_" if safe in _TAKEN or keyword.iskeyword(safe) else safe
