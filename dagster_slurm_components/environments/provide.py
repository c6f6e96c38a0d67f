"""The way of an environment to a host: planned, sent, built once, published, activated."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dagster_slurm_components.environments import conda, container, pixi, uv
from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.environments.content import (
    Artifact,
    EnvironmentPlan,
    HostPlatform,
    Progress,
    Request,
    build_order,
    compare,
    silent,
)
from dagster_slurm_components.environments.fetch import fetch
from dagster_slurm_components.environments.machine import digest_of, only_one, recall, remember
from dagster_slurm_components.environments.plan import Provided, groundwork, plan_environment
from dagster_slurm_components.environments.store import Store, check_order, pieces_of
from dagster_slurm_components.errors import EnvironmentFailedError, HostUnreachableError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.program import shipped
from dagster_slurm_components.spec.environments import EnvironmentSpec
from dagster_slurm_components.spec.resolve import ResolvedScript

_BELIEVED = 3600.0
"""Seconds for which a plan is believed without asking the host for its platform and Pythons again."""

_MEMO = 3
"""Part of every memo's name: raised when what is remembered changes its form."""

_LONGEST_WAIT = 60.0
_FETCH_TIMEOUT = 3600.0
_LONGEST_BUILD = 4 * 3600.0
"""Seconds that a build, and the wait for somebody else's build, may take."""

_PLANNERS: Mapping[str, Any] = {"uv": uv, "pixi": pixi, "conda": conda, "container": container}
"""By type the module whose ``plan`` makes the plan. Its ``inputs`` are JSON values that change whenever the plan would;
nothing is run or fetched for them. None where that can't be told so quickly: the plan is made each time."""

Tell = Callable[[str], None]


def is_content(spec: EnvironmentSpec) -> bool:
    """Return whether an environment is made by us; others are only activated."""
    return spec.type in _PLANNERS and getattr(spec, "is_made", True)


def request_for(resolved: ResolvedScript) -> Request[EnvironmentSpec]:
    """Return what a script's environment is asked for with."""
    return Request(resolved.script.environment, lambda field: resolved.base("environment", field))


def activation_for(
    resolved: ResolvedScript,
    satellite: Satellite,
    workdir: str,
    *,
    checked: bool = False,
    tell: Tell = silent,
) -> Activation:
    """Return how a script's environment is activated; before that, make it on the host if it must be.

    Unless that is to be ``checked``, one that was there lately is believed to be there still, without a call: the
    submission itself checks that. ``tell`` receives a sentence when making it starts, ends or has to wait.

    Raises:
        EnvironmentFailedError: It can't be made, or the profile accepts deployed environments only.
        HostRefusedError: The host's or the login's no.
    """
    environment, loaded = resolved.script.environment, resolved.profile
    if not is_content(environment):
        return plan_environment(environment, loaded.profile.host)
    request = request_for(resolved)
    store = Store(satellite, workdir, loaded.name, loaded.profile.environment.build == "deployed")
    provided = (None if checked else remembered(request, store)) or provide(request, store, tell=tell)
    return plan_environment(environment, loaded.profile.host, provided)


def remembered(request: Request[Any], store: Store) -> Provided | None:
    """Return the environment that these very inputs gave lately, without asking the host whether it is still there."""
    memo = _memo(request, store)
    manifest = recall("plans", memo, _BELIEVED) if memo else None
    return store.provided(manifest, "believed") if manifest else None


def provide(
    request: Request[Any],
    store: Store,
    *,
    progress: Progress = silent,
    tell: Tell = silent,
    rebuild: bool = False,
    patience: float = math.inf,
    sleep: Callable[[float], None] = time.sleep,
) -> Provided:
    """Return an environment that is on the host, made there first if it must be; with ``rebuild`` always.

    A lost connection is waited out: what was sent stays, a build goes on by itself, and both are found again. All waits
    together last for ``patience`` seconds; ``tell`` receives a sentence when something starts, ends or has to wait.

    Raises:
        EnvironmentFailedError: It can't be made, or, with ``deployed``, is not there.
        HostUnreachableError: The host is lost, and has been waited for; what was sent stays.
        HostRefusedError: The host's or the login's no.
    """
    wait, waited = 1.0, 0.0
    while True:
        try:
            return _Work(request, store, progress, tell, rebuild).provide()
        except HostUnreachableError as error:
            if waited + wait > patience:
                raise
            tell(f"{error}\nThe environment is made as soon as the host answers.")
        sleep(wait)
        waited += wait
        wait = min(wait * 2, _LONGEST_WAIT)


def plan_for(request: Request[Any], store: Store, progress: Progress = silent) -> EnvironmentPlan:
    """Return the plan of an environment for this host; asks the host what it is.

    Raises:
        EnvironmentFailedError: Nothing fits, or the lock is not usable.
    """
    python = getattr(request.spec, "python", None)
    program = python if python and not python[0].isdigit() else None
    answer = store.call("probe", {"python": program, "activation": _activation_order(request)})
    host = HostPlatform.read(answer, store.workdir)
    plan: EnvironmentPlan = _PLANNERS[request.spec.type].plan(request, host, progress)
    return plan


def _memo(request: Request[Any], store: Store) -> str | None:
    """Return the name under which the plan of these very inputs is remembered."""
    inputs = _PLANNERS[request.spec.type].inputs(request)
    if inputs is None:
        return None
    kind, under = request.spec.type, _activation_order(request)
    return digest_of(_MEMO, store.satellite.host.name, store.workdir, kind, under, inputs)


def _activation_order(request: Request[Any]) -> dict[str, str]:
    """Return the files of the modules and setup commands that the builder works under, as they will be in the job."""
    under = groundwork(request.spec)
    args = under.arguments().decode("utf-8", "surrogateescape")
    own = {"activate.sh": shipped("environments/shell/activate.sh"), "activate.args": args}
    return {**own, **under.files} if under.steps else {}


@dataclass(frozen=True)
class _Work:
    request: Request[Any]
    store: Store
    progress: Progress
    tell: Tell
    rebuild: bool

    def provide(self) -> Provided:
        began, store = time.monotonic(), self.store
        believed = remembered(self.request, store)
        found = store.published(believed.manifest["key"]) if believed and not self.rebuild else None
        if found is None:
            plan = plan_for(self.request, store, self.progress)
            found = self._published(plan)
            if found is None and store.deployed:
                raise self._not_deployed(plan)
            if found is None:
                # One process of this machine sends and builds; the others come in when it is there.
                name = digest_of(store.satellite.host.name, store.workdir, plan.key)[:32]
                with only_one(f"environment-{name}"):
                    found = self._published(plan) or self._make(plan)
            memo = _memo(self.request, store)
            if memo:
                # What a job needs of it; the state of each file stays on the host.
                kept = {name: value for name, value in found.manifest.items() if name != "installed"}
                remember("plans", memo, kept)
        return replace(found, seconds=time.monotonic() - began)

    def _published(self, plan: EnvironmentPlan) -> Provided | None:
        return None if self.rebuild else self.store.published(plan.key)

    def _make(self, plan: EnvironmentPlan) -> Provided:
        """Send what the host lacks and build, unless another machine has just done so."""
        began, store = time.monotonic(), self.store
        wanted = store.lacking(plan.artifacts)
        if getattr(self.request.spec, "build_on", None) == "host":
            wanted = self._fetch_there(wanted)
        title, size = f"Environment {plan.name} ({plan.key[:12]}", sum(item.size or 0 for item in wanted)
        self.tell(
            f"{title}, {len(plan.packages)} packages) is made on {store.satellite.host.name}: "
            f"{len(wanted)} of {len(plan.artifacts)} files, {size / 1e6:.1f} MB, are sent."
        )
        fetched = fetch(wanted, self.progress) if wanted else []
        sent = store.upload(fetched, self.progress) if fetched else 0
        self.progress("build", 0, 0)
        order = {
            **build_order(plan, {item.sha256: len(pieces_of(item)) for item in fetched}),
            "patience": _LONGEST_BUILD,
            "rebuild": self.rebuild,
            "activation": _activation_order(self.request),
            "check": check_order("names") if plan.interpreter else None,
        }
        try:
            result = store.call("build", order, timeout=_LONGEST_BUILD)
        except EnvironmentFailedError as error:
            if error.code == "disk_full":
                raise store.disk_full(error.message, sent) from error
            raise
        manifest = result["manifest"]
        self.tell(
            f"{title}) is ready after {time.monotonic() - began:.1f} s: {sent / 1e6:.1f} MB sent, "
            f"{manifest['bytes'] / 1e6:.0f} MB and {manifest['inodes']} files there."
        )
        return store.provided(manifest, result["state"], sent)

    def _fetch_there(self, wanted: Sequence[Artifact]) -> list[Artifact]:
        """Let the host fetch what it can by itself; return what must be sent all the same."""
        reachable = [item for item in wanted if item.url is not None and not item.url.startswith("file:")]
        if not reachable:
            return list(wanted)
        rows = [{"name": item.name, "sha256": item.sha256, "url": item.url} for item in reachable]
        failed = self.store.call("fetch", {"artifacts": rows}, timeout=_FETCH_TIMEOUT)["failed"]
        if failed:
            name, reason = next(iter(failed.items()))
            host = self.store.satellite.host.name
            self.tell(f"{host} can't fetch {len(failed)} of {len(rows)} files ({name}: {reason}).")
        return self.store.lacking(wanted)

    def _not_deployed(self, plan: EnvironmentPlan) -> EnvironmentFailedError:
        """Return the error of a profile that builds nothing; it names what differs from what was deployed last."""
        store, detail = self.store, list[str]()
        rows = store.call("list", {})["environments"]
        same = [row for row in rows if row["name"] == plan.name and row["kind"] == plan.kind]
        text = f"the environment {plan.name} ({plan.key[:12]}) is not deployed"
        if same:
            last = max(same, key=lambda row: float(row["created"]))
            text += f"; the lock differs from the deployed one ({last['key'][:12]}):"
            detail = compare(last, plan.manifest())
        hint = f"The profile {store.profile} builds nothing by itself. "
        hint += f"Run: dg-slurm env deploy --profile {store.profile}"
        where = store.satellite.host.name
        return EnvironmentFailedError(text, code="not_deployed", detail=detail, where=where, hint=hint)
