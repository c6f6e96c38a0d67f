"""All checks of a profile, one after the other."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dagster_slurm_components.doctor.cluster import SLURM, check_slurm
from dagster_slurm_components.doctor.connection import STAGES, check_connection
from dagster_slurm_components.doctor.findings import Finding, failed, ok, skipped
from dagster_slurm_components.doctor.host import WORKDIR, check_tools, check_workdir
from dagster_slurm_components.doctor.site import check_site
from dagster_slurm_components.errors import HostError
from dagster_slurm_components.hosts.base import Host
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.target import satellite_of
from dagster_slurm_components.spec.environments import ENVIRONMENTS
from dagster_slurm_components.spec.local_files import environment_problems
from dagster_slurm_components.spec.merge import merge
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profiles import LoadedProfile, UnknownProfileError, load_profile
from dagster_slurm_components.spec.resources import Resources


def examine_profile(name: str | None, *, start: Path) -> Iterator[Finding]:
    """Check a profile by name, which is looked for from ``start`` on: first whether it is right itself."""
    try:
        loaded = load_profile(name, start=start)
    except SpecError as error:
        yield failed("profile", str(error), _advice(name, start))
        return
    yield ok("profile", f"{loaded.name} ({loaded.file or 'built in'})")
    yield from _environment(loaded)
    yield from examine(loaded)


def _environment(loaded: LoadedProfile) -> Iterator[Finding]:
    """Tell what the profile's own environment is made of here and is not there: every job would fail."""
    merged = merge(list(loaded.layers))
    raw = merged.data.get("environment") or {}
    if "type" in raw:
        for problem in environment_problems(ENVIRONMENTS.validate(raw, None), merged):
            yield failed("environment", f"{problem.position}: {problem.message}", problem.hint)


def _advice(name: str | None, start: Path) -> str | None:
    """Return what to do about a profile with mistakes; none where something else is missing, such as a variable."""
    try:
        load_profile(name, start=start, unrendered=True)
    except UnknownProfileError:
        return None
    except SpecError:
        return "Correct it: `dg-slurm check` tells all mistakes."
    return None


def examine(loaded: LoadedProfile, *, host: Host | None = None) -> Iterator[Finding]:
    """Check the host of a profile, or another, and whether the profile's jobs would run there.

    Nothing is left behind and nothing is submitted.
    """
    profile = loaded.profile
    satellite = Satellite(host) if host else satellite_of(loaded)
    connection = list(_with_skipped(check_connection(satellite), STAGES))
    yield from connection
    if any(finding.is_failure for finding in connection):
        return
    try:
        facts = satellite.hello()
        yield from _with_skipped(check_workdir(satellite, profile, facts), WORKDIR)
        if profile.scheduler == "slurm":
            # What jobs ask for when their scripts add nothing: the site's defaults below the profile's own.
            resources = Resources.model_validate(merge(list(loaded.layers)).data.get("resources") or {})
            most = profile.limits.max_submit_jobs
            yield from _with_skipped(check_slurm(satellite, resources, facts, most), SLURM)
            if profile.site is not None and loaded.site is not None:
                yield from check_site(satellite, profile.site, loaded.site)
        yield from check_tools(satellite, loaded, facts)
    except HostError as error:
        yield failed("reach", f"the examination broke off: {error.message}", error.hint or "Try again.")


def _with_skipped(findings: Iterable[Finding], checks: Sequence[str]) -> Iterator[Finding]:
    """Yield findings, and after a failure that ended them early the checks that were not made."""
    made, failure = set(), None
    for finding in findings:
        yield finding
        made.add(finding.check)
        failure = finding.check if finding.is_failure else failure
    yield from (skipped(check, f"{failure} failed") for check in checks if check not in made)
