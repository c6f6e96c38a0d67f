"""The check of a script: in all profiles at once, or, while definitions are loaded, with no profile named."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dagster_slurm_components.spec.files import find_files
from dagster_slurm_components.spec.local_files import device_problems, environment_problems, payload_problems
from dagster_slurm_components.spec.merge import Merged, merge
from dagster_slurm_components.spec.model import UNTYPED, template_at, validate_unrendered
from dagster_slurm_components.spec.place import Position
from dagster_slurm_components.spec.problems import Problem, SpecError, problems_of
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.resolve import ScriptEntry, merge_script, overrides, travelling
from dagster_slurm_components.spec.rules import (
    not_finite,
    ranks_without_gpus,
    requeues_without_signal,
    script_problems,
    site_problems,
    staging_problems,
)
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.templates import syntax_problems

NO_PROFILE = LoadedProfile("", Profile(), (), Path())
"""Stands for all profiles while none is chosen."""


@dataclass(frozen=True)
class CheckedScript:
    """One script that was checked.

    Attributes:
        merged: Its values in the first profile.
        script: The script in the first profile, without the fields that have mistakes; None if nothing is known of its
            assets, as they have mistakes or wait for templates.
    """

    entry: ScriptEntry
    merged: Merged
    script: Script | None
    problems: tuple[Problem, ...]


class ScriptChecker:
    """Checks scripts whose templates are as they were written in some profiles; looks for each file once.

    Without profiles, scripts are rendered, and what they leave out may come from any profile.
    """

    def __init__(self, profiles: Mapping[str, LoadedProfile] | None = None) -> None:
        self.loading = profiles is None
        self.profiles = {"": NO_PROFILE} if profiles is None else profiles
        self.find = cache(find_files)

    def check(self, entry: ScriptEntry) -> CheckedScript:
        """Check one script in all profiles; a problem that not all of them have says which do."""
        by_place: dict[tuple[Position | None, str], tuple[Problem, list[str]]] = {}
        values: list[tuple[Merged, Script | None]] = []
        for names, profile in self._different(entry):
            merged = merge_script(entry, profile)
            script, problems = self._in_profile(merged, profile)
            values.append((merged, script))
            for problem in problems:
                by_place.setdefault((problem.position, problem.message), (problem, []))[1].extend(names)
        problems = []
        for problem, names in by_place.values():
            where = "" if len(names) == len(self.profiles) else f" (in profile {', '.join(sorted(names))})"
            problems.append(replace(problem, message=problem.message + where))
        if self.loading:  # the files of overrides may be needed much later than they are written
            for override in overrides(entry.script).values():
                below = [layer for layer in (entry.defaults, entry.script) if layer is not None]
                if {"payload", "files", "exclude"} & override.data.keys():
                    problems += self._missing_files(merge([*below, override], entry.folder))
        else:
            for layer in filter(None, (entry.defaults, entry.script)):
                problems += syntax_problems(layer.data, layer.position, partitioned=True)
        return CheckedScript(entry, *values[0], tuple(problems))

    def _different(self, entry: ScriptEntry) -> Iterator[tuple[list[str], LoadedProfile]]:
        """Yield the profiles that make a difference to a script; those that add nothing to it are one."""
        alike: dict[object, list[str]] = {}
        own = overrides(entry.script)
        for name, profile in self.profiles.items():
            kind = name if profile.layers or profile.site or name in own else None
            alike.setdefault(kind, []).append(name)
        for names in alike.values():
            yield names, self.profiles[names[0]]

    def _in_profile(self, merged: Merged, profile: LoadedProfile) -> tuple[Script | None, list[Problem]]:
        problems: list[Problem] = []
        without: set[object] = set()
        try:
            script = self._validated(merged.data, merged)
        except SpecError as exc:
            problems += exc.problems
            # So all that is wrong is told at once, and the assets are known to the scripts that depend on them.
            without = _fields(exc.problems)
            intact = {name: value for name, value in merged.data.items() if name not in without}
            try:
                script = self._validated(intact, merged)
            except SpecError:
                script = None
        # A script without mistakes is loaded, which looks for its files anyway.
        if problems or not self.loading:
            problems += self._missing_files(merged)
        if script is None:
            return None, problems
        problems += script_problems(script, merged.position, without=without)
        if not self.loading:
            problems += [] if "payload" in without else payload_problems(script, merged)
            if not without & {"requeue_on_timeout", "resources"}:
                problems += requeues_without_signal(script, merged)
            problems += environment_problems(script.environment, merged)
            problems += not_finite(script, merged.position)
            if not without & {"environment", "resources", "stage"}:
                problems += staging_problems(script, profile.profile.scheduler, merged.position)
            if profile.profile.scheduler == "slurm" and not without & {"launcher", "resources"}:
                problems += ranks_without_gpus(script, merged.position)
                problems += device_problems(script, merged)
        if profile.site is not None and not without:
            # What a template stands for can't be held against the site before it is rendered.
            limits = site_problems(script, profile.site, merged.position)
            problems += [each for each in limits if template_at(merged.data, each.path) is None]
        return None if "assets" in without else script, problems

    def _validated(self, data: Mapping[str, Any], merged: Merged) -> Script | None:
        try:
            if self.loading:
                return Script.model_validate(data, context=UNTYPED)
            return validate_unrendered(Script, data)
        except ValidationError as exc:
            raise SpecError(problems_of(exc, merged.position)) from None

    def _missing_files(self, merged: Merged) -> Iterator[Problem]:
        _, problems = travelling(merged, self.find)
        # While definitions are loaded, a warning has nobody to read it.
        return (each for each in problems if each.level == "error" or not self.loading)


def _fields(wrong: Iterable[Problem]) -> set[object]:
    """Return the fields of a script that have mistakes; an override's are those of the field that it names."""
    fields: set[object] = set()
    for path in (problem.path for problem in wrong):
        fields.update(path[:1], path[2:3] if path[:1] == ("profiles",) else ())
    return fields
