"""All checks of a profile, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dagster_slurm_components.doctor.cluster import SLURM, check_slurm
from dagster_slurm_components.doctor.connection import STAGES, check_connection
from dagster_slurm_components.doctor.findings import Finding, failed, ok, with_skipped
from dagster_slurm_components.doctor.tools import check_tools
from dagster_slurm_components.doctor.workdir import WORKDIR, check_workdir
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
    """Check the host of a profile, or another, and whether the profile's jobs would run there.

    Nothing is left behind and nothing is submitted.
    """
    profile = loaded.profile
    satellite = Satellite(host or connect(profile.host))
    connected = True
    for finding in with_skipped(check_connection(satellite), STAGES):
        yield finding
        connected = connected and not finding.is_failure
    if not connected:
        return
    try:
        facts = satellite.hello()
        yield from with_skipped(check_workdir(satellite, profile, facts), WORKDIR)
        if profile.scheduler == "slurm":
            # What jobs ask for when their scripts add nothing: the site's defaults below the profile's own.
            resources = Resources.model_validate(merge(list(loaded.layers)).data.get("resources") or {})
            yield from with_skipped(check_slurm(satellite, resources, facts), SLURM)
        yield from check_tools(satellite, loaded, facts)
    except HostError as error:
        yield failed("reach", f"the examination broke off: {error.message}", error.hint or "Try again.")
