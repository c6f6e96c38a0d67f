"""Scripts checked against each other: names and assets that are there twice, dependencies and profiles that aren't."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable, Iterator, Sequence

from dagster_slurm_components.spec.assets import RESERVED
from dagster_slurm_components.spec.check_script import CheckedScript
from dagster_slurm_components.spec.component import ScriptEntry
from dagster_slurm_components.spec.merge import Merged
from dagster_slurm_components.spec.place import KEY, KeyPath
from dagster_slurm_components.spec.problems import Level, Problem, did_you_mean, nearest
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.templates import is_template

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_]+")


def override_problems(entry: ScriptEntry, names: Sequence[str]) -> Iterator[Problem]:
    """Yield the overrides for profiles that don't exist: a likely slip is an error, any other name a warning."""
    overrides = entry.script.data.get("profiles")
    for name in overrides if isinstance(overrides, dict) else ():
        if name in names:
            continue
        path: KeyPath = ("profiles", name, KEY)
        level: Level = "error" if nearest(name, names) else "warning"
        where, hint = entry.script.position(path), did_you_mean(name, names)
        yield Problem(f"there is no profile `{name}`", where, path, hint, "unknown_profile", level)


def duplicate_assets(scripts: Iterable[CheckedScript]) -> Iterator[Problem]:
    """Yield the assets that are declared twice in a project."""
    first: dict[str, tuple[Merged, KeyPath]] = {}
    for checked in scripts:
        for index, asset in enumerate(checked.script.assets if checked.script else ()):
            path: KeyPath = ("assets", index, "key")
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


def duplicate_names(components: Iterable[Sequence[CheckedScript]]) -> Iterator[Problem]:
    """Yield the scripts of a project, given by component, whose ops would have the same name.

    Within a component only what a user wrote can be there twice, for other names are made different.
    """
    first: dict[str, tuple[CheckedScript, KeyPath]] = {}
    for scripts in components:
        written: set[str] = set()
        ops: dict[str, tuple[CheckedScript, KeyPath]] = {}
        for checked in scripts:
            if checked.script is None or not checked.script.assets:
                continue
            path, name = _name(checked.script)
            if is_template(name):
                continue
            op = op_name(checked.script, ops)
            if op in first or name in written:
                message, where = f"two scripts are named `{name}`", checked.merged.position(path)
                if op in first:
                    other, other_path = first[op]
                    message += f"; the first is in {other.merged.position(other_path)}"
                hint = "rename one; with a matrix, write a variable of it into the name"
                yield Problem(message, where, path, hint, "duplicate_name")
            written.update([name] if path[0] != "assets" else [])
            ops[op] = checked, path
        first = {**ops, **first}


def op_name(script: Script, taken: Container[str]) -> str:
    """Return the name of a script's op: what the user chose, or the first asset's key as Dagster writes it.

    ``taken`` are the names of the other ops of its component.
    """
    name = _NOT_IN_A_NAME.sub("_", _name(script)[1])
    if name in RESERVED:
        name += "_"
    if name not in taken:
        return name
    # Two names may differ only in characters that an op's name can't have.
    return f"{name}_{hashlib.sha256(script.assets[0].key.encode()).hexdigest()[:8]}"


def _name(script: Script) -> tuple[KeyPath, str]:
    """Return what a script's op is named after, and where that is written."""
    if script.op.name:
        return ("op", "name"), script.op.name
    if script.name:
        return ("name",), script.name
    return ("assets", 0, "key"), script.assets[0].key.replace("/", "__")


def unknown_deps(scripts: Sequence[CheckedScript], external: Iterable[str]) -> Iterator[Problem]:
    """Yield the dependencies that no script makes and no component declares external."""
    made = {asset.key for checked in scripts if checked.script for asset in checked.script.assets}
    keys = made | set(external)
    if any(checked.script is None for checked in scripts) or any(map(is_template, keys)):
        return  # it may be any of those that are not known
    guesses: dict[
        str, str | None
    ] = {}  # a thousand scripts may miss the same asset, and a near one is slow to find
    for checked in scripts:
        for path, key in _deps(checked.script):
            if key in keys or is_template(key):
                continue
            if key not in guesses:
                guesses[key] = nearest(key, keys)
            hint = "if something else makes it, list it in `external`"
            if guesses[key]:
                hint = f"did you mean `{guesses[key]}`?"
            where = checked.merged.position(path)
            yield Problem(f"no script makes `{key}`", where, path, hint, "unknown_dep", "warning")


def _deps(script: Script | None) -> Iterator[tuple[KeyPath, str]]:
    if script is None:
        return
    for index, asset in enumerate(script.assets):
        yield from ((("assets", index, "deps", number), key) for number, key in enumerate(asset.deps))
    for index, check in enumerate(script.checks):
        deps = enumerate(check.additional_deps)
        yield from ((("checks", index, "additional_deps", number), key) for number, key in deps)
