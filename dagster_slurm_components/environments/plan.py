"""Turns an environment's spec into the steps that activate it."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dagster_slurm_components.environments.base import Activation, ActivationStep
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.program import shipped
from dagster_slurm_components.spec.environments import (
    ContainerEnvironment,
    CurrentEnvironment,
    EnvironmentSpec,
    ModulesEnvironment,
    PackedEnvironment,
    PathEnvironment,
)
from dagster_slurm_components.spec.hosts import HostSpec, LocalHost


@dataclass(frozen=True)
class Provided:
    """An environment that lies in a folder on the host, and the manifest that it was published with.

    Its state is ``ready``: it was there; ``built``: it was made now, of so many bytes that were sent; ``believed``: it
    was there lately.
    """

    folder: str
    manifest: Mapping[str, Any]
    state: str
    sent: int = 0
    seconds: float = 0.0


def plan_environment(
    environment: EnvironmentSpec, host: HostSpec, provided: Provided | None = None
) -> Activation:
    """Return how an environment is activated on a host: its modules, the setup commands, then what was made there.

    Raises:
        DagsterSlurmError: It has to be made first.
    """
    below = groundwork(environment)
    own = _own(environment, host, provided)
    needs = () if provided is None else (f"{provided.folder}/.ready",)
    steps = (*below.steps, *own.steps)
    return replace(own, steps=steps, files={**below.files, **own.files}, needs=needs)


def groundwork(environment: EnvironmentSpec) -> Activation:
    """Return what lies under any environment: its modules, and the commands before and after them."""

    def commands(name: str) -> list[ActivationStep]:
        # Each command is a file of its own: the first that fails is told by its text, and no text is spliced.
        lines = enumerate(getattr(environment, name), 1)
        return [ActivationStep(name, (f"environment/{name}-{number}.sh", line)) for number, line in lines]

    before, after = commands("before_modules"), commands("setup")
    load = environment.load if isinstance(environment, ModulesEnvironment) else []
    # In one step: each has to be there after the last.
    names = (*environment.modules, *load)
    modules = [ActivationStep("modules", names)] if names else []
    files = {path: f"{line}\n" for path, line in (step.args for step in (*before, *after))}
    return Activation(steps=(*before, *modules, *after), files=files)


def _own(environment: EnvironmentSpec, host: HostSpec, provided: Provided | None) -> Activation:
    if isinstance(environment, PathEnvironment):
        return Activation((ActivationStep("prefix", (environment.path,)),))
    if isinstance(environment, ModulesEnvironment):
        return Activation()
    if isinstance(environment, CurrentEnvironment):
        return _dagsters_own() if isinstance(host, LocalHost) else Activation()
    if isinstance(environment, ContainerEnvironment) and (provided is not None or not environment.is_made):
        return _container(environment, provided)
    if isinstance(environment, PackedEnvironment) and provided is not None:
        return _packed(environment, provided)
    raise DagsterSlurmError(
        f"environments of type `{environment.type}` can't be activated before they are on the host",
        hint="`dg-slurm env plan` shows what they consist of.",
    )


def _dagsters_own() -> Activation:
    """Return how the Python that runs this is activated on its own machine; a conda package may set variables."""
    prefix = Path(sys.prefix)
    in_conda = (prefix / "conda-meta").is_dir() and (prefix / "bin" / "python").exists()
    kind, path = ("prefix", sys.prefix) if in_conda else ("python", sys.executable)
    export = ("PYTHONPATH",) if "PYTHONPATH" in os.environ else ()
    return Activation((ActivationStep(kind, (path,)),), export=export)


def _packed(environment: PackedEnvironment, provided: Provided) -> Activation:
    entry = provided.manifest["entry"]
    steps = [ActivationStep("prefix" if entry == "prefix" else "squashfs", (f"{provided.folder}/{entry}",))]
    files = {}
    if entry != "prefix":
        files["environment/mount_squashfs.sh"] = shipped("environments/shell/mount_squashfs.sh")
        files["environment/leave.sh"] = shipped("environments/shell/leave_squashfs.sh")
    if environment.verify != "off" and provided.manifest["python"] is not None:
        steps.append(ActivationStep("verify", (environment.verify, provided.folder)))
        files["environment/manifest.json"] = json.dumps(dict(provided.manifest), sort_keys=True)
        files["environment/verify_environment.py"] = shipped("environments/job/verify_environment.py")
    return Activation(tuple(steps), files=files)


def _container(environment: ContainerEnvironment, provided: Provided | None) -> Activation:
    image, digest = environment.image or "", ""
    if provided is not None:
        image = f"{provided.folder}/{provided.manifest['entry']}"
        content = provided.manifest.get("image") or provided.manifest["artifacts"][0][1]
        digest = content if environment.verify == "full" else ""
    runtime, program = environment.engine, "environment/in_container.sh"
    binds = [each if ":" in each else f"{each}:{each}" for each in environment.bind]
    words = (runtime, image, environment.gpu or "", environment.python, *binds, "--", *environment.options)
    files = {
        program: shipped("environments/shell/in_container.sh"),
        "environment/inside_container.sh": shipped("environments/shell/inside_container.sh"),
        "environment/container.args": "".join(f"{word}\0" for word in words),
    }
    if environment.edf:
        files["environment/container.toml"] = _edf(environment.edf, binds)
    return Activation(
        steps=(ActivationStep("image", (runtime, image, *([digest] if digest else []))),),
        files=files,
        wrapper=("bash", f"../{program}"),
        python=environment.python,
        by_step=runtime in ("pyxis", "edf"),
    )


def _edf(base: str, binds: Sequence[str]) -> str:
    """Return an environment file of CSCS's container engine: the user's, and what a job needs to be seen inside.

    TOML's strings are written as JSON's are; the variables are for the engine to fill in.
    """
    folders = ["${DAGSTER_SLURM_WORKDIR}:${DAGSTER_SLURM_WORKDIR}", *binds]
    values = {"base_environment": base, "mounts": folders, "workdir": "${PWD}"}
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())
