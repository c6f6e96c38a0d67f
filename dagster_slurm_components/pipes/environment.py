"""The environment of a step: made on its host first, if it is one that we make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.environments.plan import Place, groundwork, plan_environment
from dagster_slurm_components.jobs.provision.packers import is_content
from dagster_slurm_components.jobs.provision.provide import Site, provide, remembered
from dagster_slurm_components.jobs.provision.request import Request
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.spec.resolve import ResolvedScript


def request_for(resolved: ResolvedScript) -> Request:
    """Return what a script's environment is asked for with."""
    environment = resolved.script.environment

    def base(field: str) -> Path:
        return resolved.base("environment", field)

    return Request(environment, base, groundwork(environment))


def site_of(resolved: ResolvedScript, place: Target) -> Site:
    """Return where a script's environment is made."""
    profile = resolved.profile
    deployed = profile.profile.environment.build == "deployed"
    return Site(place.satellite, place.workdir, profile.name, deployed)


def activation_for(
    resolved: ResolvedScript,
    place: Target,
    *,
    checked: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Activation:
    """Return how a script's environment is activated; before that, make it on the host if it must be.

    One that was there lately is believed to be there still, without a call: the submission itself checks that.

    Args:
        resolved: The script.
        place: Where it runs.
        checked: Ask the host whether the environment is there, whatever was found lately.
        tell: Receives a sentence when making it starts, ends or has to wait.

    Raises:
        EnvironmentFailedError: It can't be made, or the profile accepts deployed environments only.
        HostRefusedError: The host's or the login's no.
    """
    environment, host = resolved.script.environment, resolved.profile.profile.host
    if not is_content(environment):
        return plan_environment(environment, host)
    request, site = request_for(resolved), site_of(resolved, place)
    provided = None if checked else remembered(request, site)
    if provided is None:
        provided = provide(request, site, tell=tell)
    return plan_environment(environment, host, Place(provided.folder, provided.manifest))
