"""A script as it would be submitted: worked out, secrets masked, nothing sent."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dagster_slurm_components.cli.terminal import near
from dagster_slurm_components.environments.plan import groundwork, plan_environment
from dagster_slurm_components.environments.provide import is_content
from dagster_slurm_components.hosts.program import shipped
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


def preview(resolved: ResolvedScript, op: str) -> dict[str, Any]:
    """Work out what a script, as the op of that name, would be submitted as: what ``render --json`` prints.

    The run's id, and what follows from it, is known only when Dagster runs: ``RUN-ID`` and ``TOKEN`` stand for it.
    Of each value that won it tells by which layer it was written, and where.

    Raises:
        SpecError: A file is missing.
        DagsterSlurmError: The script can't run in this profile.
    """
    script, profile = resolved.script, resolved.profile.profile
    spec, mask = _spec(resolved, op), Mask()
    header = mask(_header(resolved, spec))
    return {
        "op": op,
        "assets": [asset.key for asset in script.assets],
        "profile": resolved.profile.name,
        "host": getattr(profile.host, "hostname", profile.host.type),
        "scheduler": profile.scheduler,
        "run_directory": _run_directory(resolved, spec),
        "job_script": header + shipped("jobs/shell/job.sh"),
        "header": header,
        "launcher": script.launcher.type,
        "launch": [mask(option) for option in spec.launch.options],
        "payload": [mask("python" if word == PYTHON else word) for word in spec.launch.payload],
        "environment": script.environment.type,
        "activation": [[step.kind, *map(mask, step.args)] for step in spec.activation.steps],
        "env": {name: mask.variable(name, value) for name, value in spec.env.items()},
        "files": [
            {"place": f"payload/{where}", "source": near(file), "size": file.stat().st_size}
            for where, file in spec.files.items()
        ],
        "values": list(_values(resolved, mask)),
    }


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
    """Return the whole job script, with nothing masked; raises as ``preview`` does."""
    return _header(resolved, _spec(resolved, op)) + shipped("jobs/shell/job.sh")


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


def _values(resolved: ResolvedScript, mask: Mask) -> Iterator[dict[str, Any]]:
    for path, layer in resolved.merged.sources.items():
        if path[0] not in OVERRIDABLE:
            continue
        value: Any = resolved.merged.data
        for part in path:
            value = value[part]
        secret = path[0] == "env" and len(path) == 2 and _SECRET.search(str(path[1]))
        where = layer.position(path)
        position = f"{near(where.file)}:{where.line}:{where.column}" if where and where.line else ""
        shown = MASK if secret else mask.tree(value)
        yield {"path": ".".join(map(str, path)), "value": shown, "layer": layer.name, "position": position}
