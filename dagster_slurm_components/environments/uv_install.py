"""The program uv on a host: which file it is there, and how it installs the wheels of an environment."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dagster_slurm_components.environments.cache import cache_folder
from dagster_slurm_components.environments.content import (
    Artifact,
    At,
    Command,
    EnvironmentPlan,
    Interpreter,
    Platform,
    Word,
)
from dagster_slurm_components.environments.fetch import fetch
from dagster_slurm_components.environments.host.files import hash_of, new_file
from dagster_slurm_components.environments.programs import find_uv, run_program
from dagster_slurm_components.environments.pylock import LockedFile, locked_files
from dagster_slurm_components.environments.request import Progress
from dagster_slurm_components.environments.wheels import version_of, wheel_of
from dagster_slurm_components.errors import EnvironmentFailedError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMPILE = ["pip", "compile", "--quiet", "--no-deps", "--universal", "--no-header", "--format=pylock.toml"]

UV_ENVIRONMENT: Mapping[str, Word] = {
    "UV_CACHE_DIR": At("cache", "uv"),
    "UV_NO_CONFIG": "1",
    "UV_OFFLINE": "1",
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_NO_PROGRESS": "1",
}
"""What uv runs with on a host: its own cache, no network, nobody else's settings."""

_PIP = [
    "pip",
    "install",
    "--quiet",
    "--require-hashes",
    "--no-index",
    "--no-build",
    "--compile-bytecode",
    "--no-deps",
]
_INSTALL = Command(
    (
        At("content", "uv"),
        *_PIP,
        *("--python", At("prefix", "bin/python"), "--find-links", At("content")),
        *("--requirements", At("content", "requirements.txt")),
    ),
    UV_ENVIRONMENT,
)


def with_wheels(
    plan: EnvironmentPlan, files: Sequence[LockedFile], folder: Path, progress: Progress
) -> EnvironmentPlan:
    """Return a plan in which uv, on the host, also installs these Python packages, and nothing else.

    Args:
        plan: The plan without them.
        files: What the lock says; local projects and source archives are built here.
        folder: Where their relative paths start.
        progress: Hears of the bytes of source archives.

    Raises:
        EnvironmentFailedError: Something can't be fetched or built.
    """
    uv, uv_version = find_uv()
    wheels = [wheel_of(file, folder, progress) for file in files]
    versions = [file.version or version_of(wheel) for file, wheel in zip(files, wheels, strict=True)]
    names = [file.package for file in files]
    pins = list(zip(names, versions, [wheel.sha256 for wheel in wheels], strict=True))
    return dataclasses.replace(
        plan,
        packer=f"{plan.packer}, uv {uv_version}" if plan.packer else f"uv {uv_version}",
        packages=dict(zip(names, versions, strict=True)),
        artifacts=(*wheels, _uv_for(uv, uv_version, plan.platform)),
        commands=(*plan.commands, _INSTALL) if pins else plan.commands,
        files={"requirements.txt": requirements(pins)},
    )


def requirements(pins: Sequence[tuple[str, str, str]]) -> str:
    """Return a requirements file that accepts exactly these files.

    Args:
        pins: Package, version and sha256 of each.
    """
    return "".join(f"{name}=={version} --hash=sha256:{digest}\n" for name, version, digest in sorted(pins))


def _uv_for(uv: str, version: str, platform: Platform) -> Artifact:
    """Return uv itself for a platform: taken out of its wheel from the package index, or this machine's own."""
    path = cache_folder("tools") / f"uv-{version}-{platform.system}-{platform.machine}-{platform.libc}"
    if not path.exists():
        try:
            _extract_uv(uv, version, platform, path)
        except EnvironmentFailedError:  # the index can't be reached
            if (sys.platform, os.uname().machine) != (platform.system, platform.machine):
                raise
            with new_file(path) as target:
                shutil.copyfile(uv, target)
    return Artifact("uv", hash_of(path), path.stat().st_size, "tool", path=str(path))


def _extract_uv(uv: str, version: str, platform: Platform, path: Path) -> None:
    wanted = cache_folder("tools", f"lock-{version}") / "requirements.in"
    wanted.write_text(f"uv=={version}\n")
    lock = tomllib.loads(run_program([uv, *COMPILE, str(wanted)], where=str(wanted)))
    # Its wheels fit any Python; the tag only needs one to be named.
    (file,) = locked_files(lock, Interpreter("", "3.12.0"), platform, file=f"uv {version}")
    (wheel,) = fetch([wheel_of(file, wanted.parent, lambda *_: None)])
    with zipfile.ZipFile(wheel.path or "") as archive, new_file(path) as target:
        Path(target).write_bytes(archive.read(f"uv-{version}.data/scripts/uv"))
