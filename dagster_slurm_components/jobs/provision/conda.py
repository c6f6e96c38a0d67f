"""Environments of type ``conda``: a prefix that is on this machine, packed by conda-pack."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster_slurm_components.environments.content import EnvironmentPlan, Interpreter, Platform
from dagster_slurm_components.jobs.provision.archives import package_records, packed, tree_state
from dagster_slurm_components.jobs.provision.cache import digest_of, file_digest
from dagster_slurm_components.jobs.provision.errors import EnvironmentFailedError
from dagster_slurm_components.jobs.provision.progress import Progress, silent
from dagster_slurm_components.jobs.provision.request import HostPlatform, Request
from dagster_slurm_components.spec.environments import CondaEnvironment

_MACHINES = {
    ("linux", "x86_64"): "linux-64",
    ("darwin", "x86_64"): "osx-64",
    ("darwin", "arm64"): "osx-arm64",
}


def subdir_of(platform: Platform) -> str:
    """Return what conda calls a platform: ``linux-64``, ``linux-aarch64``, ``osx-arm64``."""
    return _MACHINES.get((platform.system, platform.machine), f"{platform.system}-{platform.machine}")


@functools.cache
def find_conda_pack() -> tuple[str, str]:
    """Return the path and version of conda-pack: beside this Python, else on PATH.

    Raises:
        EnvironmentFailedError: There is none.
    """
    program = shutil.which("conda-pack", path=str(Path(sys.executable).parent)) or shutil.which("conda-pack")
    if program is None:
        raise EnvironmentFailedError(
            "environments of type `conda` need the program conda-pack, which is not on this machine",
            hint="pip install 'dagster-slurm-components[conda]'",
        )
    said = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return program, said.stdout.decode().split()[-1]


class CondaPacker:
    """Plans environments of type ``conda``."""

    def inputs(self, request: Request) -> list[object] | None:
        """Return what the plan follows from: the prefix, as far as names and times tell."""
        prefix = _prefix(request)
        return [str(prefix), tree_state(prefix), find_conda_pack()[1]]

    def plan(self, request: Request, host: HostPlatform, progress: Progress = silent) -> EnvironmentPlan:
        """Return the plan; see ``Packer``. Packs the prefix for its place on the host, once for each content."""
        prefix = _prefix(request)
        program, version = find_conda_pack()
        records = package_records(prefix)
        check_platform((record["subdir"] for record in records), host.platform, str(prefix))
        plan = EnvironmentPlan(
            kind="conda",
            name=prefix.name,
            packer=f"conda-pack {version}",
            platform=host.platform,
            packages={},
            artifacts=(),
            interpreter=interpreter_of(records),
            inputs={
                **request.groundwork,
                "conda": conda_packages(records),
                "content": _identity(prefix, records),
            },
        )

        def make(place: Path, destination: str) -> None:
            argv = [program, "--prefix", str(prefix), "--dest-prefix", destination, "--format", "no-archive"]
            done = subprocess.run(
                [*argv, "--quiet", "--output", str(place)], capture_output=True, check=False
            )
            if done.returncode != 0:
                said = done.stderr.decode("utf-8", "replace").strip()[-2000:]
                raise EnvironmentFailedError(f"conda-pack says: {said}", where=str(prefix))

        return packed(plan, host.workdir, make)


def check_platform(subdirs: Iterable[str], platform: Platform, where: str) -> None:
    """Check that packages are for a platform.

    Raises:
        EnvironmentFailedError: One is for another.
    """
    wanted = subdir_of(platform)
    others = sorted({subdir for subdir in subdirs if subdir not in ("noarch", wanted)})
    if others:
        raise EnvironmentFailedError(
            f"it is made for {', '.join(others)}, and the host is {wanted}",
            where=where,
            hint="Make the prefix for the host's platform, or use an environment of type `pixi`, which can be locked"
            " for several platforms.",
        )


def conda_packages(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return version and build of each conda package, by name."""
    return {record["name"]: f"{record['version']} {record['build']}" for record in records}


def interpreter_of(records: Sequence[Mapping[str, Any]]) -> Interpreter | None:
    """Return the environment's own Python, if it has one."""
    versions = [record["version"] for record in records if record["name"] == "python"]
    return Interpreter("prefix/bin/python", versions[0]) if versions else None


def _prefix(request: Request) -> Path:
    assert isinstance(request.spec, CondaEnvironment)  # noqa: S101 - the registry of packers goes by type
    prefix = request.path("prefix")
    if not (prefix / "conda-meta").is_dir():
        raise EnvironmentFailedError(
            "no conda environment lies there (it has no folder conda-meta)",
            where=str(prefix),
            hint="`prefix` is a folder on the machine that runs Dagster; for one on the host use `type: path`.",
        )
    return prefix


def _identity(prefix: Path, records: Sequence[Mapping[str, Any]]) -> str:
    """Return a hash of the packages' content: conda's by their own hashes, pip's by their lists of files."""
    own = [
        [r["name"], r["version"], r["build"], r.get("sha256") or r.get("md5") or r.get("url")]
        for r in records
    ]
    lists = sorted(prefix.glob("lib/python*/site-packages/*.dist-info/RECORD"))
    return digest_of(own, [[file.parent.name, file_digest(file)] for file in lists])
