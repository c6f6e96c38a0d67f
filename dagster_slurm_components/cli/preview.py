"""A script as it would be submitted: worked out, secrets masked, nothing sent."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster_slurm_components.environments.plan import groundwork, plan_environment
from dagster_slurm_components.environments.provide import is_content
from dagster_slurm_components.jobs.bundle import static_file
from dagster_slurm_components.jobs.job_spec import job_spec
from dagster_slurm_components.jobs.model import JobIdentity, JobSpec
from dagster_slurm_components.jobs.schedulers import ProcessScheduler, Scheduler, SlurmScheduler
from dagster_slurm_components.launchers.base import PYTHON
from dagster_slurm_components.spec.resolve import ResolvedScript
from dagster_slurm_components.spec.script import OVERRIDABLE

MASK = "********"
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|KEY", re.IGNORECASE)
_SHORTEST_SECRET = 6
"""Characters of a value that is masked wherever it stands; shorter ones would blot out half the page."""
_RUN = "RUN-ID"


@dataclass(frozen=True)
class Value:
    """One value that won: its place in the script (``resources.mem``), masked if it is a secret.

    The layer says so (``script``, ``defaults``, ``profile production``, ``site leonardo``), at ``file:line:column``;
    the position is empty where it is unknown.
    """

    path: str
    value: Any
    layer: str
    position: str


@dataclass(frozen=True)
class File:
    """A file that travels with the job: its place in the run directory, the local file, and its bytes."""

    place: str
    source: str
    size: int


@dataclass(frozen=True)
class Preview:
    """What would be submitted.

    The run's id, and what follows from it, is known only when Dagster runs: ``RUN-ID`` and ``TOKEN`` stand for it.

    Attributes:
        assets: Keys of the script's assets.
        host: The host, as its type or its name.
        job_script: The job script: the rendered header, then the static body.
        launch: The launcher's own arguments.
        payload: The payload's argument list.
        activation: The steps that activate the environment: a word, then its arguments.
        env: The payload's variables.
        values: The values that won, and where each was written.
    """

    op: str
    assets: tuple[str, ...]
    profile: str
    host: str
    scheduler: str
    run_directory: str
    job_script: str
    header: str
    launcher: str
    launch: tuple[str, ...]
    payload: tuple[str, ...]
    environment: str
    activation: tuple[tuple[str, ...], ...]
    env: Mapping[str, str]
    files: tuple[File, ...]
    values: tuple[Value, ...]


def preview(resolved: ResolvedScript, op: str) -> Preview:
    """Work out what a script, as the op of that name, would be submitted as.

    Raises:
        SpecError: A file is missing.
        DagsterSlurmError: The script can't run in this profile.
    """
    script, profile = resolved.script, resolved.profile.profile
    spec, mask = _spec(resolved, op), Mask()
    header = mask(_header(resolved, spec))
    return Preview(
        op=op,
        assets=tuple(asset.key for asset in script.assets),
        profile=resolved.profile.name,
        host=getattr(profile.host, "hostname", profile.host.type),
        scheduler=profile.scheduler,
        run_directory=_run_directory(resolved, spec),
        job_script=header + static_file("jobs", "job.sh"),
        header=header,
        launcher=script.launcher.type,
        launch=tuple(map(mask, spec.launch.options)),
        payload=tuple(mask("python" if word == PYTHON else word) for word in spec.launch.payload),
        environment=script.environment.type,
        activation=tuple((step.kind, *map(mask, step.args)) for step in spec.activation.steps),
        env={name: mask.variable(name, value) for name, value in spec.env.items()},
        files=tuple(_files(spec)),
        values=tuple(_values(resolved, mask)),
    )


class Mask:
    """Hides secrets: variables whose names sound like one, and their values wherever they stand.

    Args:
        variables: The variables of this process; templates may have brought their values anywhere.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        variables = os.environ if variables is None else variables
        named = {value for name, value in variables.items() if _SECRET.search(name)}
        self._secrets = sorted((v for v in named if len(v) >= _SHORTEST_SECRET), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return a text without the values of secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def variable(self, name: str, value: str) -> str:
        """Return a variable's value, or the mask."""
        return MASK if _SECRET.search(name) else self(value)

    def tree(self, value: Any) -> Any:
        """Return a tree without the values of secrets."""
        if isinstance(value, list):
            return [self.tree(item) for item in value]
        return self(value) if isinstance(value, str) else value


def job_script(resolved: ResolvedScript, op: str) -> str:
    """Return the whole job script, with nothing masked.

    Raises:
        SpecError: A file is missing.
        DagsterSlurmError: The script can't run in this profile.
    """
    return _header(resolved, _spec(resolved, op)) + static_file("jobs", "job.sh")


def _spec(resolved: ResolvedScript, op: str) -> JobSpec:
    environment, host = resolved.script.environment, resolved.profile.profile.host
    # Where locked packages lie follows from their content, which `dg-slurm env plan` works out.
    activation = groundwork(environment) if is_content(environment) else plan_environment(environment, host)
    return job_spec(resolved, JobIdentity(run_id=_RUN, step=op), activation=activation)


def _run_directory(resolved: ResolvedScript, spec: JobSpec) -> str:
    return f"{resolved.profile.profile.workdir.rstrip('/')}/{spec.identity.folder}"


def _header(resolved: ResolvedScript, spec: JobSpec) -> str:
    slurm = resolved.profile.profile.scheduler == "slurm"
    scheduler: Scheduler = SlurmScheduler("") if slurm else ProcessScheduler()
    header = scheduler.header(spec, _run_directory(resolved, spec))
    return header.replace(spec.identity.token, "TOKEN")


def _files(spec: JobSpec) -> Iterator[File]:
    for file in spec.files:
        size = len(file.source) if isinstance(file.source, bytes) else file.source.stat().st_size
        source = near(file.source) if isinstance(file.source, Path) else ""
        yield File(f"payload/{file.path}", source, size)


def _values(resolved: ResolvedScript, mask: Mask) -> Iterator[Value]:
    for path, layer in resolved.merged.sources.items():
        if path[0] not in OVERRIDABLE:
            continue
        value: Any = resolved.merged.data
        for part in path:
            value = value[part]
        secret = path[0] == "env" and len(path) == 2 and _SECRET.search(str(path[1]))
        where = layer.position(path)
        position = f"{near(Path(where.file))}:{where.line}:{where.column}" if where else ""
        shown = MASK if secret else mask.tree(value)
        yield Value(".".join(map(str, path)), shown, layer.name, position)


def near(file: Path) -> str:
    """Return a file's name as seen from here, if it lies below, else whole."""
    relative = os.path.relpath(file)
    return str(file) if relative.startswith("..") else relative
