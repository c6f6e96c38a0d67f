"""Environments of type ``container`` whose image is a file of this machine."""

from __future__ import annotations

from pathlib import Path

from dagster_slurm_components.environments.content import Artifact, EnvironmentPlan
from dagster_slurm_components.jobs.provision.cache import file_digest
from dagster_slurm_components.jobs.provision.errors import EnvironmentFailedError
from dagster_slurm_components.jobs.provision.progress import Progress, silent
from dagster_slurm_components.jobs.provision.request import HostPlatform, Request


class ContainerPacker:
    """Plans environments of type ``container``."""

    def inputs(self, request: Request) -> list[object] | None:
        """Return what the plan follows from: the image, as far as its size and time tell."""
        image = _image(request)
        found = image.stat()
        return [str(image), found.st_size, found.st_mtime_ns]

    def plan(self, request: Request, host: HostPlatform, progress: Progress = silent) -> EnvironmentPlan:
        """Return the plan; see ``Packer``."""
        image = _image(request)
        name = f"image{image.suffix}"
        return EnvironmentPlan(
            kind="container",
            name=image.stem,
            packer="none",
            platform=host.platform,
            packages={},
            artifacts=(Artifact(name, file_digest(image), image.stat().st_size, "image", path=str(image)),),
            entry=name,
        )


def _image(request: Request) -> Path:
    image = request.path("image")
    if not image.is_file():
        raise EnvironmentFailedError(
            "there is no such image",
            where=str(image),
            hint="A relative path is a file on the machine that runs Dagster; one on the host begins with `/`.",
        )
    return image
