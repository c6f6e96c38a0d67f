"""Environments of type ``container`` whose image is a file of this machine."""

from pathlib import Path

from dagster_slurm_components.environments.content import (
    Artifact,
    EnvironmentPlan,
    HostPlatform,
    Progress,
    Request,
)
from dagster_slurm_components.environments.host.tools import hash_of
from dagster_slurm_components.errors import EnvironmentFailedError
from dagster_slurm_components.spec.environments import ContainerEnvironment


def inputs(request: Request[ContainerEnvironment]) -> list[object]:
    """Return what the plan follows from: the image, as far as its size and time tell."""
    image = _image(request)
    return [str(image), image.stat().st_size, image.stat().st_mtime_ns]


def plan(request: Request[ContainerEnvironment], host: HostPlatform, progress: Progress) -> EnvironmentPlan:
    """Return the plan: the image and nothing else."""
    image = _image(request)
    name = f"image{image.suffix}"
    artifact = Artifact(name, hash_of(image), image.stat().st_size, "image", path=str(image))
    return EnvironmentPlan("container", image.stem, host.platform, "none", artifacts=(artifact,), entry=name)


def _image(request: Request[ContainerEnvironment]) -> Path:
    image = request.path("image")
    if not image.is_file():
        raise EnvironmentFailedError(
            "there is no such image",
            where=str(image),
            hint="A relative path is a file on the machine that runs Dagster; one on the host begins with `/`.",
        )
    return image
