"""The environments that the scripts of a project need in a profile, and the end of those that nobody needs."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dagster_slurm_components.component.project import project_scripts
from dagster_slurm_components.environments.content import Request
from dagster_slurm_components.environments.machine import trim_cache
from dagster_slurm_components.environments.provide import is_content, plan_for, request_for
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.resolve import ResolvedScript


@dataclass
class Need:
    """An environment that scripts of the project, which are named, need in this profile."""

    request: Request[Any]
    scripts: list[str] = field(default_factory=list)


def needs(loaded: LoadedProfile, folder: Path) -> list[Need]:
    """Return the different environments that the project around a folder needs; raises as ``project_scripts``."""
    found: dict[str, Need] = {}
    for script in project_scripts(folder, loaded.name):
        resolved = script.entry.resolve(loaded)
        environment = resolved.script.environment
        if not is_content(environment):
            continue
        request = request_for(resolved)
        paths = [str(request.base(name)) for name in type(environment).model_fields]
        key = json.dumps([environment.model_dump(mode="json"), paths])
        found.setdefault(key, Need(request)).scripts.append(script_name(resolved))
    return list(found.values())


def script_name(resolved: ResolvedScript) -> str:
    """Return what a person calls a script."""
    script = resolved.script
    return str(script.name or script.payload or " ".join(script.command or ["?"]))


def prune(
    loaded: LoadedProfile,
    store: Store,
    folder: Path,
    unused_for: float | None = None,
    *,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Remove what nobody needs nor used for so many seconds, by default those of the profile's ``retention``.

    That is environments, as ``Store.prune`` tells, and of this machine's cache ``cache_freed`` bytes.
    """
    unused = duration_seconds(loaded.profile.retention.environments) if unused_for is None else unused_for
    keep = [plan_for(need.request, store).key for need in needs(loaded, folder)]
    found = store.prune(keep, unused_for=unused, dry_run=dry_run)
    return {**found, "cache_freed": trim_cache(unused, dry_run=dry_run)}
