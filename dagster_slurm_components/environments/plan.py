"""Turns an environment's spec into the steps that activate it."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    own_shell = isinstance(environment, (CurrentEnvironment, ModulesEnvironment))
    apart = () if own_shell or not isinstance(host, LocalHost) else (ActivationStep("isolate"),)
    steps = (*apart, *below.steps, *own.steps)
    return replace(own, steps=steps, files={**below.files, **own.files}, needs=needs)


def groundwork(environment: EnvironmentSpec) -> Activation:
    """Return what lies under any environment: its modules and setup commands."""
    steps = [ActivationStep("modules", tuple(environment.modules))] if environment.modules else []
    if isinstance(environment, ModulesEnvironment):
        steps.append(ActivationStep("modules", tuple(environment.load)))
    # Each command is a file of its own: the first that fails is told by its text, and no text is spliced.
    files = {}
    for number, line in enumerate(environment.setup, 1):
        path = f"environment/setup-{number}.sh"
        files[path] = f"{line}\n"
        steps.append(ActivationStep("setup", (path, line)))
    return Activation(steps=tuple(steps), files=files)


def _own(environment: EnvironmentSpec, host: HostSpec, provided: Provided | None) -> Activation:
    if isinstance(environment, PathEnvironment):
        return Activation((ActivationStep("prefix", (environment.path,)),))
    if isinstance(environment, ModulesEnvironment):
        return Activation()
    if isinstance(environment, CurrentEnvironment):
        python = ActivationStep("python", (sys.executable,))
        return Activation((python,) if isinstance(host, LocalHost) else ())
    if isinstance(environment, ContainerEnvironment) and (provided is not None or not environment.is_sent):
        return _container(environment, provided)
    if isinstance(environment, PackedEnvironment) and provided is not None:
        return _packed(environment, provided)
    raise DagsterSlurmError(
        f"environments of type `{environment.type}` can't be activated before they are on the host",
        hint="`dg-slurm env plan` shows what they consist of.",
    )


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
    image, digest = environment.image, ""
    if provided is not None:
        image = f"{provided.folder}/{provided.manifest['entry']}"
        digest = provided.manifest["artifacts"][0][1] if environment.verify == "full" else ""
    mounts = environment.bind
    if environment.runtime == "pyxis":
        # pyxis wants both sides of each mount.
        options = tuple(f"--container-mounts={m if ':' in m else f'{m}:{m}'}" for m in mounts)
    else:
        gpu = {"nvidia": ("--nv",), "amd": ("--rocm",)}.get(environment.gpu or "", ())
        options = (*gpu, *(word for mount in mounts for word in ("--bind", mount)))
    runtime, program = environment.runtime, "environment/in_container.sh"
    return Activation(
        steps=(ActivationStep("image", (runtime, image, *([digest] if digest else []))),),
        files={program: shipped("environments/shell/in_container.sh")},
        wrapper=("bash", f"../{program}", runtime, image, *options, *environment.options, "--"),
        python=environment.python,
    )
