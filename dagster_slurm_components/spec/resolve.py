"""A script and all that lies below it, merged and validated."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError
from typing_extensions import Self

from dagster_slurm_components.spec.files import add_files, matching_files, place
from dagster_slurm_components.spec.merge import Layer, Merged, merge
from dagster_slurm_components.spec.place import KeyPath, Position
from dagster_slurm_components.spec.problems import Problem, SpecError, problems_of
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.sbatch import SUFFIXES, sbatch_layer
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.templates import fill_partition

CONTENT = ("payload", "command", "args", "env", "files", "launcher", "environment")
"""The fields that shape a script's result; how much it asks of Slurm does not."""


@dataclass(frozen=True)
class ResolvedScript:
    """A script as it will run in a profile, with the raw values that won and where each came from.

    Relative paths of arguments that no YAML wrote start at ``folder``.
    """

    script: Script
    merged: Merged
    folder: Path
    profile: LoadedProfile

    def at_partition(self, names: Mapping[str, Any], missing: str) -> Self:
        """Return the script for one partition, of which templates know ``names``.

        A SpecError tells of a template that needs more than there is, with ``missing`` as its advice.
        """
        fields = {"args": self.script.args, "command": self.script.command, "env": dict(self.script.env)}
        filled = fill_partition(fields, self.merged.position, names, missing)
        return self if filled == fields else replace(self, script=self.script.model_copy(update=filled))

    def position(self, *path: str | int) -> Position | None:
        """Return where the winning value was written: ``position("resources", "partition")``."""
        return self.merged.position(path)

    def base(self, *path: str | int) -> Path:
        """Return the folder where a relative path that is written at ``path`` starts.

        A path starts beside the YAML that wrote it: a profile's at the project folder, those of
        ``defaults`` and of an included script at the folder of their own file.
        """
        return self.merged.folder(path) or self.folder

    def payload_file(self) -> Path | None:
        """Return the payload file, or None for a command."""
        return self.base("payload") / self.script.payload if self.script.payload is not None else None

    def payload_place(self) -> PurePosixPath | None:
        """Return where the payload lies in the job's payload folder, or None for a command."""
        file = self.payload_file()
        return place(os.path.relpath(file, self.base("payload"))) if file is not None else None

    def payload_files(self) -> Mapping[PurePosixPath, Path]:
        """Return the payload and the files beside it, by their place in the job's payload folder.

        A SpecError says that a file is not there, a pattern matches none, or two files would lie at one place.
        """
        by_place: dict[PurePosixPath, Path] = {}
        problems: list[Problem] = []
        for path, pattern in wanted_files(self.script.payload, self.script.files):
            folder = self.base(*path)
            files = list(matching_files(folder, pattern))
            if not files:
                problems.append(no_file(pattern, folder, self.position(*path), path))
            for where, file in files:
                other = by_place.setdefault(where, file)
                if other != file and not other.samefile(file):
                    message = f"both {other} and {file} would travel as {where}"
                    problems.append(Problem(message, self.position(*path), path, "rename one", "same_place"))
        if problems:
            raise SpecError(problems)
        return by_place

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


def wanted_files(payload: Any, files: Any) -> Iterator[tuple[KeyPath, Any]]:
    """Yield the path or pattern of each file that travels with a script, and where it is written."""
    if payload is not None:
        yield ("payload",), payload
    for index, pattern in enumerate(files if isinstance(files, list) else ()):
        yield ("files", index), pattern


def no_file(pattern: str, folder: Path, position: Position | None, path: KeyPath) -> Problem:
    """Return the problem of a pattern that matches no file."""
    hint = "check the spelling; relative paths start there"
    return Problem(f"no file matches {pattern!r} in {folder}", position, path, hint, "no_file")


def resolve_script(
    *, profile: LoadedProfile, defaults: Layer | None, script: Layer, folder: Path
) -> ResolvedScript:
    """Merge site, profile, defaults, script, its own override for the profile and the run's, and validate.

    The script's relative paths start at ``folder``. A SpecError has a problem for each mistake, at the place where the
    value that won was written.
    """
    merged = merge_script(profile=profile, defaults=defaults, script=script, folder=folder)
    try:
        model = Script.model_validate(merged.data)
    except ValidationError as exc:
        raise SpecError(problems_of(exc, merged.position)) from None
    return ResolvedScript(model, merged, folder, profile)


def merge_script(*, profile: LoadedProfile, defaults: Layer | None, script: Layer, folder: Path) -> Merged:
    """Merge site, profile, defaults, script, its own override for the profile, and the run's.

    The ``#SBATCH`` lines of a payload that is a batch script lie above the profile, and below all that is YAML's.
    """
    own = (defaults, script, overrides(script).get(profile.name), *profile.run.layers)
    above = [layer for layer in own if layer is not None]
    merged = merge([*profile.layers, *above])
    payload = merged.data.get("payload")
    if isinstance(payload, str) and payload.endswith(SUFFIXES):
        file = (merged.folder(("payload",)) or folder) / payload
        if file.is_file():
            return merge([*profile.layers, sbatch_layer(file), *above])
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
