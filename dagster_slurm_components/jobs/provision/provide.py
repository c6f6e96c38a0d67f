"""The way of an environment to a host: known, planned, sent, built once, published."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster_slurm_components.environments.content import Artifact, EnvironmentPlan, build_order, compare
from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts.calls import FileRead
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.provision.builder import (
    LONGEST_BUILD,
    Builder,
    activation_order,
    check_order,
)
from dagster_slurm_components.jobs.provision.cache import digest_of, only_one, recall, remember
from dagster_slurm_components.jobs.provision.errors import EnvironmentFailedError
from dagster_slurm_components.jobs.provision.fetch import fetch
from dagster_slurm_components.jobs.provision.packers import packer_of
from dagster_slurm_components.jobs.provision.progress import Progress, silent
from dagster_slurm_components.jobs.provision.request import HostPlatform, Request
from dagster_slurm_components.jobs.provision.store import disk_full, lacking, pieces_of, upload

_BELIEVED = 3600.0
"""Seconds for which a plan is believed without asking the host for its platform and Pythons again."""

_MEMO = 2
"""Part of every memo's name: raised when what is remembered changes its form."""

_LONGEST_WAIT = 60.0
_FETCH_TIMEOUT = 3600.0


@dataclass(frozen=True)
class Site:
    """Where environments are made.

    Attributes:
        satellite: The host.
        workdir: The profile's working folder there.
        profile: The profile's name, for messages.
        deployed: Whether only environments are accepted that `dg-slurm env deploy` made.
    """

    satellite: Satellite
    workdir: str
    profile: str
    deployed: bool = False

    @property
    def builder(self) -> Builder:
        """The builder there."""
        return Builder(self.satellite, self.workdir)

    def folder(self, key: str) -> str:
        """Return where the environment of this key lies."""
        return f"{self.workdir}/envs/{key}"


@dataclass(frozen=True)
class Provided:
    """An environment that is on the host.

    Attributes:
        folder: Where it lies there.
        manifest: What it was published with.
        state: ``ready``: it was there; ``built``: it was made now; ``believed``: it was there lately.
        sent: Bytes that travelled for it.
        seconds: How long it took.
    """

    folder: str
    manifest: Mapping[str, Any]
    state: str
    sent: int = 0
    seconds: float = 0.0


def remembered(request: Request, site: Site) -> Provided | None:
    """Return the environment that these very inputs gave lately, without asking the host whether it is still there.

    Whoever believes it lets the submission check it: its folder holds ``.ready``, or nothing is submitted.
    """
    memo = _memo(request, site)
    known = recall("plans", memo) if memo else None
    if known is None or abs(time.time() - known[1]) >= _BELIEVED:
        return None
    manifest = known[0]
    return Provided(site.folder(manifest["key"]), manifest, "believed")


def provide(
    request: Request,
    site: Site,
    *,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda text: None,
    rebuild: bool = False,
    patience: float = math.inf,
    sleep: Callable[[float], None] = time.sleep,
) -> Provided:
    """Return an environment that is on the host, made there first if it must be.

    A lost connection is waited out: what was sent stays, a build goes on by itself, and both are found again.

    Args:
        request: The environment.
        site: The host.
        progress: Hears of bytes.
        tell: Receives a sentence when something starts, ends or has to wait.
        rebuild: Whether it is made anew even if it is there.
        patience: Seconds for which a lost host is waited for, all waits together.
        sleep: Waits; the tests' clock.

    Raises:
        EnvironmentFailedError: It can't be made, or, with ``deployed``, is not there.
        HostUnreachableError: The host is lost, and has been waited for; what was sent stays.
        HostRefusedError: The host's or the login's no.
    """
    wait, waited = 1.0, 0.0
    while True:
        try:
            return _provide(request, site, progress, tell, rebuild)
        except HostUnreachableError as error:
            if waited + wait > patience:
                raise
            tell(f"{error}\nThe environment is made as soon as the host answers.")
        sleep(wait)
        waited += wait
        wait = min(wait * 2, _LONGEST_WAIT)


def _provide(
    request: Request, site: Site, progress: Progress, tell: Callable[[str], None], rebuild: bool
) -> Provided:
    began = time.monotonic()
    believed = None if rebuild else remembered(request, site)
    if believed is not None:
        found = published(site, believed.manifest["key"])
        if found is not None:
            return dataclasses.replace(
                believed, manifest=found, state="ready", seconds=time.monotonic() - began
            )
    plan = plan_for(request, site, progress)
    found = None if rebuild else published(site, plan.key)
    if found is None and site.deployed:
        raise _not_deployed(plan, site)
    state, sent = "ready", 0
    if found is None:
        # One process of this machine sends and builds; the others come in when it is there.
        with only_one(f"environment-{digest_of(site.satellite.host.name, site.workdir, plan.key)[:32]}"):
            found = None if rebuild else published(site, plan.key)
            if found is None:
                state, found, sent = make(plan, request, site, progress, tell, rebuild=rebuild)
    memo = _memo(request, site)
    if memo:
        # What a job needs of it; the state of each file stays on the host.
        remember("plans", memo, {name: value for name, value in found.items() if name != "installed"})
    return Provided(site.folder(plan.key), found, state, sent, time.monotonic() - began)


def _memo(request: Request, site: Site) -> str | None:
    """Return the name under which the plan of these very inputs is remembered."""
    inputs = packer_of(request.spec).inputs(request)
    if inputs is None:
        return None
    under = [request.under.arguments().decode("utf-8", "surrogateescape"), dict(request.under.files)]
    return digest_of(_MEMO, site.satellite.host.name, site.workdir, request.spec.type, under, inputs)


def published(site: Site, key: str) -> Mapping[str, Any] | None:
    """Return the manifest of an environment if it is there. One call."""
    file = site.satellite.read(
        [FileRead(f"{site.folder(key)}/.ready", 0, 64 * 1024 * 1024)], total=64 * 1024 * 1024
    )[0]
    if not file.exists:
        return None
    manifest: Mapping[str, Any] = json.loads(file.data)
    return manifest


def plan_for(request: Request, site: Site, progress: Progress = silent) -> EnvironmentPlan:
    """Return the plan of an environment for this host; asks the host what it is.

    Raises:
        EnvironmentFailedError: Nothing fits, or the lock is not usable.
    """
    python = getattr(request.spec, "python", None)
    program = python if python and not python[0].isdigit() else None
    order = {"python": program, "activation": activation_order(request.under)}
    host = HostPlatform.read(site.builder.call("probe", order), site.workdir)
    return packer_of(request.spec).plan(request, host, progress)


def make(
    plan: EnvironmentPlan,
    request: Request,
    site: Site,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda text: None,
    *,
    rebuild: bool = False,
) -> tuple[str, Mapping[str, Any], int]:
    """Send what the host lacks and build; return ``built`` or ``ready``, the manifest and the bytes that travelled."""
    began = time.monotonic()
    wanted = lacking(site.satellite, site.workdir, plan.artifacts)
    if getattr(request.spec, "build_on", None) == "host":
        wanted = _fetch_there(site, wanted, tell)
    size = sum(artifact.size or 0 for artifact in wanted)
    tell(
        f"Environment {plan.name} ({plan.key[:12]}, {len(plan.packages)} packages) is made on "
        f"{site.satellite.host.name}: {len(wanted)} of {len(plan.artifacts)} files, {size / 1e6:.1f} MB, are sent."
    )
    fetched = fetch(wanted, progress) if wanted else []
    sent = upload(site.satellite, site.workdir, fetched, progress) if fetched else 0
    pieces = {item.sha256: len(pieces_of(item)) for item in fetched}
    progress("build", 0, 0)
    order = {
        **build_order(plan, site.workdir, pieces),
        "patience": LONGEST_BUILD,
        "rebuild": rebuild,
        "activation": activation_order(request.under),
        "check": check_order("names") if plan.interpreter else None,
    }
    try:
        result = site.builder.call("build", order, timeout=LONGEST_BUILD)
    except EnvironmentFailedError as error:
        if error.code == "disk_full":
            raise disk_full(site.satellite, site.workdir, error.message, sent) from error
        raise
    tell(
        f"Environment {plan.name} ({plan.key[:12]}) is ready after {time.monotonic() - began:.1f} s: "
        f"{sent / 1e6:.1f} MB sent, {result['manifest']['bytes'] / 1e6:.0f} MB and "
        f"{result['manifest']['inodes']} files there."
    )
    return result["state"], result["manifest"], sent


def _fetch_there(site: Site, wanted: Sequence[Artifact], tell: Callable[[str], None]) -> list[Artifact]:
    """Let the host fetch what it can by itself; return what must be sent all the same."""
    reachable = [item for item in wanted if item.url is not None and not item.url.startswith("file:")]
    if not reachable:
        return list(wanted)
    rows = [{"name": item.name, "sha256": item.sha256, "url": item.url} for item in reachable]
    failed = site.builder.call("fetch", {"artifacts": rows}, timeout=_FETCH_TIMEOUT)["failed"]
    if failed:
        name, reason = next(iter(failed.items()))
        tell(f"{site.satellite.host.name} can't fetch {len(failed)} of {len(rows)} files ({name}: {reason}).")
    return lacking(site.satellite, site.workdir, wanted)


def _not_deployed(plan: EnvironmentPlan, site: Site) -> EnvironmentFailedError:
    """Return the error of a profile that builds nothing; it names what differs from what was deployed last."""
    rows = site.builder.call("list", {})["environments"]
    same = [row for row in rows if row["name"] == plan.name and row["kind"] == plan.kind]
    detail: list[str] = []
    text = f"the environment {plan.name} ({plan.key[:12]}) is not deployed"
    if same:
        last = max(same, key=lambda row: float(row["created"]))
        text += f"; the lock differs from the deployed one ({last['key'][:12]}):"
        detail = compare(last, plan.manifest()).lines()
    return EnvironmentFailedError(
        text,
        code="not_deployed",
        detail=detail,
        where=site.satellite.host.name,
        hint=f"The profile {site.profile} builds nothing by itself. Run: dg-slurm env deploy --profile {site.profile}",
    )
