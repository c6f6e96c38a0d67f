"""A script and all that lies below it, merged and validated."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import Self

from dagster_slurm_components.spec.files import LARGEST, TOO_LARGE, Found, add_files, find_files, place
from dagster_slurm_components.spec.inputs import Inputs
from dagster_slurm_components.spec.merge import Layer, Merged, merge
from dagster_slurm_components.spec.model import Model
from dagster_slurm_components.spec.outputs import Outputs, literal
from dagster_slurm_components.spec.place import KeyPath, Locate, Position
from dagster_slurm_components.spec.problems import Problem, SpecError, problems_of
from dagster_slurm_components.spec.profiles import LoadedProfile, chosen_profile
from dagster_slurm_components.spec.sbatch import SUFFIXES, sbatch_layer
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.templates import INPUTS, asks_for_profile, fill_waiting, is_template
from dagster_slurm_components.units import format_size

CONTENT = ("payload", "command", "args", "env", "files", "launcher", "environment")
"""The fields that shape a script's result; how much it asks of Slurm does not."""
_NAMED: Mapping[str, TypeAdapter[Any]] = {"inputs": TypeAdapter(Inputs), "outputs": TypeAdapter(Outputs)}
_TRAVELS = "files travel, and links and folders for the files they lead to; a name such as `.env` must be spelled out"


def _below(position: Locate, field: str, path: KeyPath) -> Position | None:
    return position((field, *path))


@dataclass(frozen=True)
class ResolvedScript:
    """A script as it will run in a profile, with the raw values that won and where each came from."""

    script: Script
    merged: Merged
    profile: LoadedProfile

    def at_partition(self, names: Mapping[str, Any], missing: str) -> Self:
        """Return the script for one partition, or with its inputs, of which templates know ``names``.

        A SpecError tells of a template that needs more than there is, with ``missing`` as its advice.
        """
        script, position = self.script, self.merged.position
        fields: dict[str, Any] = {"args": script.args, "command": script.command, "env": dict(script.env)}
        for field in _NAMED if INPUTS not in names else ():
            given: Mapping[str, Model] = getattr(script, field)
            fields |= {field: {name: each.explicit() for name, each in given.items()}} if given else {}
        filled = fill_waiting(fields, position, names, missing, literal=literal)
        if filled == fields:
            return self
        for field in filled.keys() & _NAMED.keys():
            try:
                filled[field] = _NAMED[field].validate_python(filled[field])
            except ValidationError as exc:
                raise SpecError(problems_of(exc, partial(_below, position, field))) from None
        return replace(self, script=script.model_copy(update=filled))

    def position(self, *path: str | int) -> Position | None:
        """Return where the winning value was written: ``position("resources", "partition")``."""
        return self.merged.position(path)

    def base(self, *path: str | int) -> Path:
        """Return the folder where a relative path that is written at ``path`` starts."""
        return self.merged.folder(path)

    def payload_file(self) -> Path | None:
        """Return the payload file, or None for a command."""
        return self.base("payload") / self.script.payload if self.script.payload is not None else None

    def payload_place(self) -> PurePosixPath | None:
        """Return where the payload lies in the job's payload folder, or None for a command."""
        file = self.payload_file()
        return place(os.path.relpath(file, self.base("payload"))) if file is not None else None

    def payload_files(self, find: Callable[..., Found] = find_files) -> Mapping[PurePosixPath, Path]:
        """Return the payload and the files beside it, by their place in the job's payload folder.

        A SpecError says that a pattern matches no file, two files would lie at one place, or all are too large.
        ``find`` may remember what it found.
        """
        files, problems = travelling(self.merged, find)
        if wrong := [problem for problem in problems if problem.level == "error"]:
            raise SpecError(wrong)
        return files

    def content_digest(self) -> str:
        """Return a hash of all that shapes the result: the payload's and files' bytes, and how they run.

        Environment variables count as they were written: one may be a secret that is renewed every hour. Errors are
        those of ``payload_files``.
        """
        digest = hashlib.sha256()
        raw = self.script.model_dump(mode="json", include=set(CONTENT) - {"env"})
        raw["env"] = {name: self.merged.as_written(("env", name)) for name in self.script.env}
        digest.update(json.dumps(raw, sort_keys=True, ensure_ascii=True, default=str).encode())
        add_files(digest, self.payload_files())
        return digest.hexdigest()


@dataclass(frozen=True)
class ScriptEntry:
    """One script of a component, or one cell of its ``matrix``, as a raw tree that knows where it was written.

    ``folder`` is that of the file that holds it: the script's relative paths start there.
    """

    script: Layer
    defaults: Layer | None
    folder: Path

    def resolve(self, profile: LoadedProfile) -> ResolvedScript:
        """Return the script as it runs in a profile, or raise a SpecError with a problem for each mistake."""
        resolved = resolve_script(self, profile)
        asked, chosen = profile.run.profile, chosen_profile()
        message = f"the run asks for the profile `{asked}`, but this template was rendered for `{chosen}`"
        wrong = [
            Problem.at(layer.position, path, message, f"write a value for it under `profiles.{asked}`")
            for path, layer in resolved.merged.sources.items()
            if asked not in (None, chosen)
            and path[0] != "profiles"
            and asks_for_profile(layer.as_written(path))
        ]
        if wrong:
            raise SpecError(wrong)
        return resolved


def travelling(
    merged: Merged, find: Callable[..., Found] = find_files
) -> tuple[Mapping[PurePosixPath, Path], list[Problem]]:
    """Return payload and files by their places, none of them read, and what is wrong; paths start as for a script."""
    by_place: dict[PurePosixPath, tuple[Path, int, KeyPath]] = {}
    problems: list[Problem] = []
    exclude = tuple(pattern for _, pattern in _wanted(merged.data, "exclude"))
    for path, pattern in (*_wanted(merged.data, "payload"), *_wanted(merged.data, "files")):
        base, told = merged.folder(path), partial(Problem.at, merged.position, path)
        files, others = find(base, pattern, exclude if path[0] == "files" else ())
        if others or not files:
            text = f"not all of {pattern!r} can travel" if files else f"no file matches {pattern!r} in {base}"
            text += (": " if others else "") + "; ".join(others[:3]) + ("; ..." if others[3:] else "")
            hint = _TRAVELS if others else "check the spelling; relative paths start there"
            problems.append(told(text, hint, "no_file", level="warning" if files else "error"))
        for where, (file, size) in files.items():
            other = by_place.setdefault(where, (file, size, path))[0]
            if other != file and not other.samefile(file):
                text = f"both {other} and {file} would travel as {where}"
                problems.append(told(text, "rename one", "same_place"))
    if (total := sum(size for _, size, _ in by_place.values())) > LARGEST:
        where, (_, size, path) = max(by_place.items(), key=lambda item: item[1][1])
        text = f"the script's files have {format_size(total)}, and a job carries {format_size(LARGEST)}"
        text += f"; the largest is {where} of {format_size(size)}"
        problems.append(Problem.at(merged.position, path, text, TOO_LARGE, "too_large"))
    return {where: file for where, (file, _, _) in by_place.items()}, problems


def _wanted(data: Mapping[str, Any], name: str) -> Iterator[tuple[KeyPath, str]]:
    """Yield each path or pattern of a field, and where it is written; what is none is told elsewhere."""
    value = data.get(name)
    for index, text in enumerate(value if isinstance(value, list) else [value]):
        if isinstance(text, str) and not is_template(text) and "\0" not in text:
            yield (name, index) if isinstance(value, list) else (name,), text


def resolve_script(entry: ScriptEntry, profile: LoadedProfile) -> ResolvedScript:
    """Merge site, profile, defaults, script, its own override for the profile and the run's, and validate.

    A SpecError has a problem for each mistake, at the place where the value that won was written.
    """
    merged = merge_script(entry, profile)
    try:
        model = Script.model_validate(merged.data)
    except ValidationError as exc:
        raise SpecError(problems_of(exc, merged.position)) from None
    return ResolvedScript(model, merged, profile)


def merge_script(entry: ScriptEntry, profile: LoadedProfile) -> Merged:
    """Merge site, profile, defaults, script, its own override for the profile, and the run's.

    The ``#SBATCH`` lines of a payload that is a batch script lie above the profile, and below all that is YAML's.
    """
    own = (entry.defaults, entry.script, overrides(entry.script).get(profile.name), *profile.run.layers)
    above = [layer for layer in own if layer is not None]
    merged = merge([*profile.layers, *above], entry.folder)
    payload = merged.data.get("payload")
    if isinstance(payload, str) and payload.endswith(SUFFIXES):
        file = merged.folder(("payload",)) / payload
        if file.is_file():
            return merge([*profile.layers, sbatch_layer(file), *above], entry.folder)
    return merged


def overrides(script: Layer) -> Mapping[str, Layer]:
    """Return the overrides of a script that are mappings, by profile; a check says what is wrong with others."""
    written = script.data.get("profiles")
    items = written.items() if isinstance(written, Mapping) else ()
    return {name: _override(script, name, data) for name, data in items if isinstance(data, Mapping)}


def _override(script: Layer, profile: str, data: Mapping[str, Any]) -> Layer:
    prefix = ("profiles", profile)
    return Layer(
        f"{script.name}, {profile}",
        data,
        lambda path: script.position((*prefix, *path)),
        script.folder,
        script.as_written(prefix),
    )
