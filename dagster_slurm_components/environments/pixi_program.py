"""The program ``pixi-pack``, where it is installed, fetches conda packages: it has pixi's own mirrors and logins.

What it brings is taken only if its hash is the lock's: pixi-pack itself checks packages when it downloads them, not
those of its cache. What it does not bring is fetched without it. Read from pixi-pack 0.7.10.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dagster_slurm_components.environments.cache import cache_folder
from dagster_slurm_components.environments.content import Artifact
from dagster_slurm_components.environments.fetch import cached_file, fetch
from dagster_slurm_components.environments.host.files import new_file
from dagster_slurm_components.environments.programs import run_program
from dagster_slurm_components.environments.request import Progress, silent

PROGRAM = "pixi-pack"
_HINT = (
    f"`{PROGRAM} --version` must be 0.7 or newer. Without {PROGRAM} on PATH the packages are fetched from"
    " where the lock says, with the logins of ~/.netrc."
)


def pack_arguments(program: str, manifest: Path, environment: str, subdir: str, target: Path) -> list[str]:
    """Return the command that packs an environment's packages for a platform into a tar."""
    options = ["--environment", environment, "--platform", subdir, "--output-file", str(target)]
    options += ["--use-cache", str(cache_folder("pixi-pack"))]
    # PyPI packages are our own affair: source archives are built here.
    return [program, *options, "--ignore-pypi-non-wheel", str(manifest)]


def fetch_packages(
    folder: Path, environment: str, subdir: str, wanted: Sequence[Artifact], progress: Progress = silent
) -> list[Artifact]:
    """Return the conda packages of an environment with their files here.

    Args:
        folder: The project's folder, which holds the manifest and the lock.
        environment: Name of the environment in the lock.
        subdir: The platform, as conda calls it.
        wanted: Its packages.
        progress: Hears of bytes.

    Raises:
        EnvironmentFailedError: One can't be fetched, or has another content than the lock names.
    """
    program = shutil.which(PROGRAM)
    lacking = {item.name: item for item in wanted if not cached_file(item).exists()}
    if program and not all((item.url or "").startswith("file:") for item in lacking.values()):
        with tempfile.TemporaryDirectory(dir=cache_folder("packed")) as aside:
            archive = Path(aside) / "environment.tar"
            argv = pack_arguments(program, folder, environment, subdir, archive)
            run_program(argv, cwd=folder, where=str(folder), hint=_HINT)
            with tarfile.open(archive) as packed:
                for member in packed:
                    item = lacking.get(Path(member.name).name)
                    source = packed.extractfile(member) if member.name.startswith("channel/") else None
                    if item is not None and source is not None:  # `fetch` checks its hash
                        with new_file(cached_file(item)) as target, open(target, "wb") as file:
                            shutil.copyfileobj(source, file)
    return fetch(wanted, progress)
