"""Scripts checked against each other: names and assets that are there twice, dependencies and profiles that aren't."""

import hashlib
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from dagster_slurm_components.spec.check_script import CheckedScript
from dagster_slurm_components.spec.keys import RESERVED
from dagster_slurm_components.spec.model import Model
from dagster_slurm_components.spec.partition_mappings import fits
from dagster_slurm_components.spec.place import KEY, KeyPath, Position
from dagster_slurm_components.spec.problems import Level, Problem, did_you_mean, nearest
from dagster_slurm_components.spec.resolve import ScriptEntry
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.templates import is_template

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_]+")


def override_problems(entry: ScriptEntry, names: Sequence[str]) -> Iterator[Problem]:
    """Yield the overrides for profiles that don't exist: a likely slip is an error, any other name a warning."""
    overrides = entry.script.data.get("profiles")
    for name in overrides if isinstance(overrides, dict) else ():
        if name not in names:
            message, hint = f"there is no profile `{name}`", did_you_mean(name, names)
            level: Level = "error" if nearest(name, names) else "warning"
            path: KeyPath = ("profiles", name, KEY)
            yield Problem.at(entry.script.position, path, message, hint, "unknown_profile", level=level)


def duplicate_assets(scripts: Iterable[CheckedScript]) -> Iterator[Problem]:
    """Yield the assets that are declared twice in a project."""
    first: dict[str, tuple[CheckedScript, KeyPath]] = {}
    for checked in scripts:
        for index, asset in enumerate(checked.script.assets if checked.script else ()):
            path: KeyPath = ("assets", index, "key")
            if asset.key in first:
                other, other_path = first[asset.key]
                where, before = checked.merged.position(path), other.merged.position(other_path)
                message = f"the asset `{asset.key}` is declared twice"
                message += f"; the first is in {before}" if before != where else ""
                hint = "rename one; with a matrix, write a variable of it into the key"
                yield Problem(message, where, path, hint, "duplicate_asset")
            elif not is_template(asset.key):
                first[asset.key] = checked, path


def duplicate_names(components: Iterable[Sequence[CheckedScript]]) -> Iterator[Problem]:
    """Yield the scripts of a project, given by component, whose ops would have the same name.

    Within a component only what a user wrote can be there twice, for other names are made different.
    """
    first: dict[str, tuple[CheckedScript, KeyPath]] = {}
    for scripts in components:
        written: set[str] = set()
        ops: dict[str, tuple[CheckedScript, KeyPath]] = {}
        for checked in scripts:
            if checked.script is None or not (checked.script.assets or checked.script.checks):
                continue
            path, name = _name(checked.script)
            if is_template(name):
                continue
            op = op_name(checked.script, ops)
            if op in first or name in written:
                message = f"two scripts are named `{name}`"
                if op in first:
                    other, other_path = first[op]
                    message += f"; the first is in {other.merged.position(other_path)}"
                hint = "rename one; with a matrix, write a variable of it into the name"
                yield Problem.at(checked.merged.position, path, message, hint, "duplicate_name")
            if path[0] not in ("assets", "checks"):
                written.add(name)
            ops[op] = checked, path
        first = {**ops, **first}


def op_name(script: Script, taken: Container[str]) -> str:
    """Return the name of a script's op: what the user chose, or the first asset's key as Dagster writes it.

    ``taken`` are the names of the other ops of its component.
    """
    name = _plain(_name(script)[1])
    if name in RESERVED:
        name += "_"
    if name not in taken:
        return name
    # Two names may differ only in characters that an op's name can't have.
    made = script.assets[0].key if script.assets else f"{script.checks[0].asset}:{script.checks[0].name}"
    return f"{name}_{hashlib.sha256(made.encode()).hexdigest()[:8]}"


def asset_step(key: str) -> str:
    """Return the name that an op has after an asset, by its key, as a rule."""
    return _plain(key.replace("/", "__"))


def _plain(name: str) -> str:
    return _NOT_IN_A_NAME.sub("_", name)


def _name(script: Script) -> tuple[KeyPath, str]:
    """Return what a script's op is named after, and where that is written."""
    if script.op.name:
        return ("op", "name"), script.op.name
    if script.name:
        return ("name",), script.name
    if script.assets:
        return ("assets", 0, "key"), script.assets[0].key.replace("/", "__")
    check = script.checks[0]
    return ("checks", 0, "name"), f"{check.asset.replace('/', '__')}_{check.name}"


def unknown_deps(scripts: Sequence[CheckedScript], external: Iterable[str]) -> Iterator[Problem]:
    """Yield the dependencies that no script makes and no component declares external."""
    made = {asset.key for checked in scripts if checked.script for asset in checked.script.assets}
    keys = made | set(external)
    if any(checked.script is None for checked in scripts) or any(map(is_template, keys)):
        return  # it may be any of those that are not known
    # A thousand scripts may miss the same asset, and a near one is slow to find.
    guess = cache(lambda key: nearest(key, keys))
    for checked in scripts:
        for path, key in _deps(checked.script):
            if key not in keys and not is_template(key):
                hint = "if something else makes it, list it in `external`"
                if guess(key):
                    hint = f"did you mean `{guess(key)}`?"
                message = f"no script makes `{key}`"
                yield Problem.at(checked.merged.position, path, message, hint, "unknown_dep", level="warning")


def circular_deps(scripts: Sequence[CheckedScript]) -> Iterator[Problem]:
    """Yield a circle of assets that are made from each other, or of scripts that make all of theirs at once."""
    made = [(each, *item) for each in scripts if each.script for item in enumerate(each.script.assets)]
    step = {asset.key: asset.key for _, _, asset in made}
    for hint in ("take one out of `deps`", "take one out of `deps`, or make a script of each asset"):
        after: dict[str, dict[str, Position | None]] = {}
        for checked, index, asset in made:
            own, where = step[asset.key], checked.merged.position(("assets", index))
            before = {step[dep.asset]: where for dep in asset.deps if step.get(dep.asset, own) != own}
            after.setdefault(own, {}).update(before)
        try:
            TopologicalSorter(after).prepare()
        except CycleError as exc:
            circle = exc.args[1][::-1]
            message = "a circle of `deps`: " + ", ".join(f"`{key}`" for key in circle)
            yield Problem(message, after[circle[0]][circle[1]], ("assets",), hint, "circle")
            return
        wholes = [each.script for each in scripts if each.script and not each.script.can_subset]
        step |= {asset.key: script.assets[0].key for script in wholes for asset in script.assets}


def unlike_partitions(scripts: Sequence[CheckedScript]) -> Iterator[Problem]:
    """Yield the dependencies whose partitions Dagster can't bring together; templates may give any."""
    made = {
        asset.key: asset.partitions_def for each in scripts if each.script for asset in each.script.assets
    }
    for checked in scripts:
        for index, asset in enumerate(checked.script.assets if checked.script else ()):
            after = asset.partitions_def
            for number, dep in enumerate(asset.deps):
                before, mapping = made.get(dep.asset), dep.partition_mapping
                known = all(each is None or isinstance(each, Model) for each in (before, after, mapping))
                if before is None or not known or fits(mapping, before, after):
                    continue
                message = f"the partitions of `{asset.key}` ({_kind(after)}) can't be made from those of `{dep.asset}` "
                message += f"({_kind(before)})" + (f" by `{mapping.type}`" if mapping else "")
                hint = "give both the same partitions, or write a `partition_mapping` such as `{type: all}`"
                path: KeyPath = ("assets", index, "deps", number)
                yield Problem.at(checked.merged.position, path, message, hint, "unlike_partitions")


def _kind(partitions: Any) -> str:
    zone = getattr(partitions, "timezone", None)
    return f"{partitions.type}{f', {zone}' if zone else ''}" if partitions else "none"


def _deps(script: Script | None) -> Iterator[tuple[KeyPath, str]]:
    for index, asset in enumerate(script.assets if script else ()):
        yield from ((("assets", index, "deps", number), dep.asset) for number, dep in enumerate(asset.deps))
    for index, check in enumerate(script.checks if script else ()):
        deps = enumerate(check.additional_deps)
        yield from ((("checks", index, "additional_deps", number), key) for number, key in deps)
        yield ("checks", index, "asset"), check.asset
