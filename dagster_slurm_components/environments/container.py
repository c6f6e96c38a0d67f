"""Environments of type ``container`` whose image is a file of this machine, or one that the host fetches."""

import tarfile
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

_ENTRY = {"pyxis": "image.sqsh"}
"""What an image is called that the host makes, by runtime; else ``image.sif``."""


def inputs(request: Request[ContainerEnvironment]) -> list[object]:
    """Return what the plan follows from: the reference, or the image as far as its size and time tell."""
    spec = request.spec
    if spec.is_reference:
        return [spec.image, spec.engine]
    image = _image(request)
    return [str(image), image.stat().st_size, image.stat().st_mtime_ns, spec.engine]


def plan(request: Request[ContainerEnvironment], host: HostPlatform, progress: Progress) -> EnvironmentPlan:
    """Return the plan: an image, or what the runtime makes one of on the host.

    A reference is its own content: what a tag means today is fetched once, and again by `--rebuild`.
    """
    spec = request.spec
    if spec.is_reference:
        name, pull, artifacts = str(spec.image), str(spec.image), tuple[Artifact, ...]()
    else:
        image = _image(request)
        file = f"image{image.suffix}"
        name, pull = image.stem, _archive(image, file)
        artifacts = (Artifact(file, hash_of(image), image.stat().st_size, "image", path=str(image)),)
        if not pull:
            return EnvironmentPlan("container", name, host.platform, "none", artifacts=artifacts, entry=file)
    if spec.engine == "charliecloud":
        hint = "Make a squashfs file of it by `ch-convert` and name that."
        raise EnvironmentFailedError("Charliecloud runs no such image", where=spec.image, hint=hint)
    entry = _ENTRY.get(spec.engine, "image.sif")
    made_of = {"image": pull, "runtime": spec.engine}
    return EnvironmentPlan(
        "container",
        name,
        host.platform,
        spec.engine,
        {},
        artifacts,
        inputs=made_of,
        entry=entry,
        form="image",
    )


def _archive(image: Path, name: str) -> str:
    """Return how runtimes call an archive that Docker or Podman has saved; empty for an image that they run."""
    if not tarfile.is_tarfile(image):
        return ""
    with tarfile.open(image) as archive:
        kind = "docker-archive" if "manifest.json" in archive.getnames() else "oci-archive"
    return f"{kind}:{name}"


def _image(request: Request[ContainerEnvironment]) -> Path:
    image = request.path("image")
    if not image.is_file():
        raise EnvironmentFailedError(
            "there is no such image",
            where=str(image),
            hint="A relative path is a file on the machine that runs Dagster; one on the host begins with `/`.",
        )
    return image
