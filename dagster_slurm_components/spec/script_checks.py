"""Scripts of a project, checked in all profiles at once, and against each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from pydantic import ValidationError

from dagster_slurm_components.spec.component import ScriptEntry
from dagster_slurm_components.spec.files import matching_files
from dagster_slurm_components.spec.merge import Merged, merge
from dagster_slurm_components.spec.model import template_at, validate_unrendered
from dagster_slurm_components.spec.place import KEY, Path, Position
from dagster_slurm_components.spec.problems import Level, Problem, did_you_mean, nearest, problems_of
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.resolve import merge_script
from dagster_slurm_components.spec.rules import intact_part, script_problems, site_problems
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.templates import is_template, syntax_problems


@dataclass(frozen=True)
class CheckedScript:
    """One script that was checked.

    Attributes:
        entry: The script as written.
        merged: Its values in the first profile.
        script: The script in the first profile, without the fields that have mistakes; None if nothing is known of its
            assets, as they have mistakes or wait for templates.
    """

    entry: ScriptEntry
    merged: Merged
    script: Script | None


class ScriptChecker:
    """Checks scripts in some profiles; looks for each file once.

    Args:
        profiles: The profiles by name.
    """

    def __init__(self, profiles: Mapping[str, LoadedProfile]) -> None:
        self.profiles = profiles
        self._missing: dict[tuple[FilePath, str], bool] = {}

    def check(self, entry: ScriptEntry) -> tuple[CheckedScript, list[Problem]]:
        """Check one script in all profiles; a problem that not all of them have says which do."""
        found: dict[tuple[Position | None, str], tuple[Problem, list[str]]] = {}
        checked: CheckedScript | None = None
        for names, profile in self._different(entry):
            merged = merge_script(profile=profile, defaults=entry.defaults, script=entry.script)
            script, problems = self._in_profile(merged, profile, entry.folder)
            checked = checked or CheckedScript(entry, merged, script)
            for problem in problems:
                found.setdefault((problem.position, problem.message), (problem, []))[1].extend(names)
        problems = list(syntax_problems(entry.script.data, entry.script.position))
        for problem, names in found.values():
            everywhere = len(names) == len(self.profiles)
            where = "" if everywhere else f" (in profile {', '.join(sorted(names))})"
            problems.append(replace(problem, message=problem.message + where))
        return checked or CheckedScript(entry, merge([]), None), problems

    def _different(self, entry: ScriptEntry) -> Iterator[tuple[list[str], LoadedProfile]]:
        """Yield the profiles that make a difference to a script; those that add nothing to it are one."""
        overrides = entry.script.data.get("profiles")
        alike: dict[object, list[str]] = {}
        for name, profile in self.profiles.items():
            overridden = isinstance(overrides, Mapping) and name in overrides
            kind = name if profile.layers or profile.site or overridden else None
            alike.setdefault(kind, []).append(name)
        for names in alike.values():
            yield names, self.profiles[names[0]]

    def _in_profile(
        self, merged: Merged, profile: LoadedProfile, folder: FilePath
    ) -> tuple[Script | None, list[Problem]]:
        try:
            script = validate_unrendered(Script, merged.data)
        except ValidationError as exc:
            wrong = problems_of(exc, merged.position)
            rest, beside = _rest(merged, wrong)
            return rest, [*wrong, *self._missing_files(merged, folder), *beside]
        problems = list(self._missing_files(merged, folder))
        if script is not None:
            problems += script_problems(script, merged.position)
            if profile.site is not None:
                # What a template stands for can't be held against the site before it is rendered.
                found = site_problems(script, profile.site, merged.position)
                problems += [each for each in found if template_at(merged.data, each.path) is None]
        return script, problems

    def _missing_files(self, merged: Merged, folder: FilePath) -> Iterator[Problem]:
        wanted: list[tuple[Path, object]] = [(("payload",), merged.data.get("payload"))]
        files = merged.data.get("files")
        wanted += [
            (("files", index), file) for index, file in enumerate(files if isinstance(files, list) else [])
        ]
        for path, pattern in wanted:
            if not isinstance(pattern, str) or is_template(pattern) or "\0" in pattern:
                continue
            layer = merged.source(path)
            base = layer.folder if layer is not None and layer.folder is not None else folder
            if self._is_missing(base, pattern):
                message = f"no file matches {pattern!r} in {base}"
                hint = "check the spelling; relative paths start there"
                yield Problem(message, merged.position(path), path, hint, "no_file")

    def _is_missing(self, folder: FilePath, pattern: str) -> bool:
        key = (folder, pattern)
        if key not in self._missing:
            self._missing[key] = next(iter(matching_files(folder, pattern)), None) is None
        return self._missing[key]


def _rest(merged: Merged, wrong: Iterable[Problem]) -> tuple[Script | None, list[Problem]]:
    """Return the part of a script that has no mistakes, if it has its assets, and where that doesn't agree."""
    data, without = intact_part(merged.data, wrong)
    try:
        script = validate_unrendered(Script, data)
    except ValidationError:
        return None, []
    if script is None:
        return None, []
    problems = list(script_problems(script, merged.position, without=without))
    return (None if "assets" in without else script), problems


def override_problems(entry: ScriptEntry, names: Sequence[str]) -> Iterator[Problem]:
    """Yield the overrides for profiles that don't exist: a likely slip is an error, any other name a warning."""
    overrides = entry.script.data.get("profiles")
    for name in overrides if isinstance(overrides, Mapping) else ():
        if name in names:
            continue
        path: Path = ("profiles", name, KEY)
        level: Level = "error" if nearest(name, names) else "warning"
        yield Problem(
            f"there is no profile `{name}`",
            entry.script.position(path),
            path,
            did_you_mean(name, names),
            "unknown_profile",
            level,
        )


def duplicate_assets(scripts: Iterable[CheckedScript]) -> Iterator[Problem]:
    """Yield the assets that are declared twice in a project."""
    first: dict[str, tuple[Merged, Path]] = {}
    for checked in scripts:
        for index, asset in enumerate(checked.script.assets if checked.script else ()):
            path: Path = ("assets", index, "key")
            if is_template(asset.key):
                continue
            if asset.key not in first:
                first[asset.key] = checked.merged, path
                continue
            merged, other = first[asset.key]
            where, before = checked.merged.position(path), merged.position(other)
            message = f"the asset `{asset.key}` is declared twice"
            if before != where:
                message += f"; the first is in {before}"
            hint = "rename one; with a matrix, write a variable of it into the key"
            yield Problem(message, where, path, hint, "duplicate_asset")


def unknown_deps(scripts: Sequence[CheckedScript], external: Iterable[str]) -> Iterator[Problem]:
    """Yield the dependencies that no script makes and no component declares external."""
    if any(checked.script is None for checked in scripts):  # it may make any of those
        return
    known = {asset.key for checked in scripts if checked.script for asset in checked.script.assets}
    known.update(external)
    if any(map(is_template, known)):  # it may be any of those
        return
    guesses: dict[
        str, str | None
    ] = {}  # a thousand scripts may miss the same asset, and looking for a near one is slow
    for checked in scripts:
        for path, key in _deps(checked.script):
            if key in known or is_template(key):
                continue
            if key not in guesses:
                guesses[key] = nearest(key, known)
            guess = guesses[key]
            hint = (
                f"did you mean `{guess}`?" if guess else "if something else makes it, list it in `external`"
            )
            message = f"no script makes `{key}`"
            yield Problem(message, checked.merged.position(path), path, hint, "unknown_dep", "warning")


def _deps(script: Script | None) -> Iterator[tuple[Path, str]]:
    if script is None:
        return
    for index, asset in enumerate(script.assets):
        yield from ((("assets", index, "deps", number), key) for number, key in enumerate(asset.deps))
    for index, check in enumerate(script.checks):
        deps = enumerate(check.additional_deps)
        yield from ((("checks", index, "additional_deps", number), key) for number, key in deps)


def duplicate_names(scripts: Iterable[CheckedScript]) -> Iterator[Problem]:
    """Yield the scripts of one component that are named alike."""
    seen: set[str] = set()
    for checked in scripts:
        if checked.script is None:
            continue
        path: Path = ("op", "name") if checked.script.op.name else ("name",)
        name = checked.script.op.name or checked.script.name
        if name is None or is_template(name):
            continue
        if name in seen:
            hint = "rename one; with a matrix, write a variable of it into the name"
            where = checked.merged.position(path)
            yield Problem(f"two scripts are named `{name}`", where, path, hint, "duplicate_name")
        seen.add(name)
