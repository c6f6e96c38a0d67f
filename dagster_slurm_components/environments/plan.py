"""Turns an environment's spec into the steps that activate it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files as resource_files
from typing import Any

from dagster_slurm_components.environments.base import Activation, ActivationStep
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.environments import (
    ContainerEnvironment,
    CurrentEnvironment,
    EnvironmentSpec,
    ModulesEnvironment,
    PackedEnvironment,
    PathEnvironment,
)
from dagster_slurm_components.spec.hosts import HostSpec, LocalHost

_MANIFEST = "environment/manifest.json"
_VERIFY = "environment/verify_environment.py"
_MOUNT = "environment/mount_squashfs.sh"
_LEAVE = "environment/leave.sh"
_IN_CONTAINER = "environment/in_container.sh"


@dataclass(frozen=True)
class Place:
    """An environment that was put on the host.

    Attributes:
        folder: Where it lies there.
        manifest: What it consists of, as the lock says.
    """

    folder: str
    manifest: Mapping[str, Any]


def plan_environment(environment: EnvironmentSpec, host: HostSpec, place: Place | None = None) -> Activation:
    """Return how an environment is activated on a host.

    Modules come first, then the setup commands, then the environment itself.

    Args:
        environment: The environment.
        host: The host.
        place: Where it lies, if it is one that is put there.

    Raises:
        DagsterSlurmError: An environment that this host can't have.
    """
    below = groundwork(environment)
    own = _own(environment, host, place)
    needs = () if place is None else (f"{place.folder}/.ready",)
    files = {**below.files, **own.files}
    return replace(own, steps=(*below.steps, *own.steps), files=files, needs=needs)


def groundwork(environment: EnvironmentSpec) -> Activation:
    """Return what lies under any environment: its modules and setup commands."""
    steps = []
    if environment.modules:
        steps.append(ActivationStep("modules", tuple(environment.modules)))
    if isinstance(environment, ModulesEnvironment):
        steps.append(ActivationStep("modules", tuple(environment.load)))
    # Each command is a file of its own: the first that fails is told by its text, and no text is spliced.
    files = {
        f"environment/setup-{number}.sh": f"{line}\n" for number, line in enumerate(environment.setup, 1)
    }
    steps += [
        ActivationStep("setup", (path, line)) for path, line in zip(files, environment.setup, strict=True)
    ]
    return Activation(steps=tuple(steps), files=files)


def _own(environment: EnvironmentSpec, host: HostSpec, place: Place | None) -> Activation:
    if isinstance(environment, PathEnvironment):
        return Activation((ActivationStep("prefix", (environment.path,)),))
    if isinstance(environment, ModulesEnvironment):
        return Activation()
    if isinstance(environment, CurrentEnvironment):
        return Activation(
            (ActivationStep("python", (sys.executable,)),) if isinstance(host, LocalHost) else ()
        )
    if isinstance(environment, ContainerEnvironment) and (place is not None or not environment.is_sent):
        return _container(environment, place)
    if isinstance(environment, PackedEnvironment) and place is not None:
        return _packed(environment, place)
    raise DagsterSlurmError(
        f"environments of type `{environment.type}` can't be activated before they are on the host",
        hint="`dg-slurm env plan` shows what they consist of.",
    )


def _packed(environment: PackedEnvironment, place: Place) -> Activation:
    entry = place.manifest.get("entry", "prefix")
    steps = [ActivationStep("prefix" if entry == "prefix" else "squashfs", (f"{place.folder}/{entry}",))]
    files = {}
    if entry != "prefix":
        files[_MOUNT] = _static("shell", "mount_squashfs.sh")
        files[_LEAVE] = _static("shell", "leave_squashfs.sh")
    if environment.verify != "off" and place.manifest["python"] is not None:
        steps.append(ActivationStep("verify", (environment.verify, place.folder)))
        files[_MANIFEST] = json.dumps(dict(place.manifest), sort_keys=True)
        files[_VERIFY] = verify_program()
    return Activation(tuple(steps), files=files)


def _container(environment: ContainerEnvironment, place: Place | None) -> Activation:
    image, digest = environment.image, ""
    if place is not None:
        image = f"{place.folder}/{place.manifest['entry']}"
        digest = place.manifest["artifacts"][0][1] if environment.verify == "full" else ""
    mounts = environment.bind
    if environment.runtime == "pyxis":
        # pyxis wants both sides of each mount.
        options = tuple(f"--container-mounts={m if ':' in m else f'{m}:{m}'}" for m in mounts)
    else:
        gpu = {"nvidia": ("--nv",), "amd": ("--rocm",)}.get(environment.gpu or "", ())
        options = (*gpu, *(word for mount in mounts for word in ("--bind", mount)))
    wrapper = (
        "bash",
        f"../{_IN_CONTAINER}",
        environment.runtime,
        image,
        *options,
        *environment.options,
        "--",
    )
    return Activation(
        steps=(ActivationStep("image", (environment.runtime, image, *([digest] if digest else []))),),
        files={_IN_CONTAINER: _static("shell", "in_container.sh")},
        wrapper=wrapper,
        python=environment.python,
    )


def _static(folder: str, name: str) -> str:
    return (resource_files(__package__) / folder / name).read_text("utf-8")


def verify_program() -> str:
    """Return the static file that compares an environment with its manifest, in the job."""
    return _static("job", "verify_environment.py")
