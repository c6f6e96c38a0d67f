"""All checks of a profile, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dagster_slurm_components.doctor.cluster import check_slurm
from dagster_slurm_components.doctor.connection import check_connection
from dagster_slurm_components.doctor.findings import Finding, failed, ok
from dagster_slurm_components.doctor.tools import check_tools
from dagster_slurm_components.doctor.workdir import check_workdir
from dagster_slurm_components.errors import HostError
from dagster_slurm_components.hosts.base import Host
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.connect import connect
from dagster_slurm_components.spec.merge import merge
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profiles import LoadedProfile, load_profile
from dagster_slurm_components.spec.resources import Resources


def examine_profile(name: str | None, *, start: Path) -> Iterator[Finding]:
    """Check a profile by name: first whether it is right itself.

    Args:
        name: Its name; else ``DAGSTER_SLURM_PROFILE``, else ``local``.
        start: Where the search for it begins.
    """
    try:
        loaded = load_profile(name, start=start)
    except SpecError as error:
        yield failed("profile", str(error), "Correct it: `dg-slurm check` tells all mistakes.")
        return
    yield ok("profile", f"{loaded.name} ({loaded.file or 'built in'})")
    yield from examine(loaded)


def examine(loaded: LoadedProfile, *, host: Host | None = None) -> Iterator[Finding]:
    """Check the host of a profile, and whether jobs would run there.

    Nothing is left behind and nothing is submitted.

    Args:
        loaded: The profile.
        host: The host, if not the profile's.
    """
    satellite = Satellite(host or connect(loaded.profile.host))
    connection = check_connection(satellite)
    yield from connection.findings
    if connection.facts is None:
        return
    try:
        yield from check_workdir(satellite, loaded.profile, connection.facts)
        if loaded.profile.scheduler == "slurm":
            yield from check_slurm(satellite, profile_resources(loaded), connection.facts)
        yield from check_tools(satellite, loaded, connection.facts)
    except HostError as error:
        yield failed("reach", f"the examination broke off: {error.message}", error.hint or "Try again.")


def profile_resources(loaded: LoadedProfile) -> Resources:
    """Return what the profile's jobs ask for when their scripts add nothing: the site's defaults below its own."""
    merged = merge(list(loaded.layers)).data.get("resources") or {}
    return Resources.model_validate(merged)
