"""Python packages as wheels, and uv, which installs them on the host."""

import dataclasses
import os
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import parse_wheel_filename

from dagster_slurm_components.environments.content import (
    Artifact,
    EnvironmentPlan,
    Interpreter,
    Platform,
    Progress,
)
from dagster_slurm_components.environments.fetch import fetch
from dagster_slurm_components.environments.host.tools import hash_of, new_file
from dagster_slurm_components.environments.machine import (
    cache_folder,
    find_uv,
    run_program,
    use,
)
from dagster_slurm_components.environments.pylock import LockedPackage, locked_packages
from dagster_slurm_components.environments.sources import built
from dagster_slurm_components.errors import EnvironmentFailedError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def with_wheels(
    plan: EnvironmentPlan, packages: Sequence[LockedPackage], progress: Progress
) -> EnvironmentPlan:
    """Return a plan in which uv, on the host, also installs these Python packages.

    Raises:
        EnvironmentFailedError: A source archive can't be fetched, or no wheel can be built.
    """
    uv, uv_version = find_uv()
    wheels = {
        package.name: package.file
        if package.file.kind == "wheel"
        else built(package, plan.interpreter, plan.platform, progress)
        for package in packages
    }
    pins = [(name, str(parse_wheel_filename(wheel.name)[1]), wheel.sha256) for name, wheel in wheels.items()]
    return dataclasses.replace(
        plan,
        packer=f"{plan.packer}, uv {uv_version}" if plan.packer else f"uv {uv_version}",
        packages={name: version for name, version, _ in pins},
        artifacts=(*wheels.values(), _uv_for(uv, uv_version, plan.platform)),
        requirements=requirements(pins),
    )


def requirements(pins: Sequence[tuple[str, str, str]]) -> str:
    """Return a requirements file that accepts exactly these files: package, version and sha256 of each."""
    return "".join(f"{name}=={version} --hash=sha256:{digest}\n" for name, version, digest in sorted(pins))


def compiled(file: Path, cwd: Path | None = None) -> str:
    """Return the ``pylock.toml`` of a requirements file, for any platform, by uv's settings in or above a folder."""
    argv = "pip compile --quiet --no-deps --universal --no-header --format=pylock.toml"
    return run_program([find_uv()[0], *argv.split(), str(file)], where=str(file), cwd=cwd)


def _uv_for(uv: str, version: str, platform: Platform) -> Artifact:
    """Return uv itself for a platform: taken out of its wheel from the package index, or this machine's own."""
    path = cache_folder("tools") / f"uv-{version}-{platform.system}-{platform.machine}-{platform.libc}"
    if not path.exists():
        try:
            _extract_uv(version, platform, path)
        except EnvironmentFailedError:  # the index can't be reached
            if (sys.platform, os.uname().machine) != (platform.system, platform.machine):
                raise
            with new_file(path) as target:
                shutil.copyfile(uv, target)
    use(path)
    return Artifact("uv", hash_of(path), path.stat().st_size, "tool", path=str(path))


def _extract_uv(version: str, platform: Platform, path: Path) -> None:
    wanted = cache_folder("tools", f"lock-{version}") / "requirements.in"
    wanted.write_text(f"uv=={version}\n")
    lock = tomllib.loads(compiled(wanted))
    # Its wheels fit any Python; the tag only needs one to be named.
    (uv,) = locked_packages(lock, Interpreter("", "3.12.0"), platform, Path(f"uv {version}"))
    (wheel,) = fetch([uv.file])
    with zipfile.ZipFile(wheel.path or "") as archive, new_file(path) as target:
        target.write_bytes(archive.read(f"uv-{version}.data/scripts/uv"))
