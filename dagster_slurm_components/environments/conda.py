"""Environments of type ``conda``: a prefix that is on this machine, packed by conda-pack."""

from __future__ import annotations

from pathlib import Path

from dagster_slurm_components.environments.cache import digest_of
from dagster_slurm_components.environments.content import EnvironmentPlan
from dagster_slurm_components.environments.host.files import hash_of
from dagster_slurm_components.environments.prefix import conda_plan, package_records, packed, tree_state
from dagster_slurm_components.environments.programs import find_program, run_program
from dagster_slurm_components.environments.request import HostPlatform, Progress, Request
from dagster_slurm_components.errors import EnvironmentFailedError
from dagster_slurm_components.spec.environments import CondaEnvironment


def inputs(request: Request[CondaEnvironment]) -> list[object]:
    """Return what the plan follows from: the prefix, as far as names and times tell."""
    prefix = _prefix(request)
    return [str(prefix), tree_state(prefix), find_program("conda-pack", "conda")[1]]


def plan(request: Request[CondaEnvironment], host: HostPlatform, progress: Progress) -> EnvironmentPlan:
    """Return the plan. Packs the prefix for its place on the host, once for each content."""
    prefix = _prefix(request)
    program, version = find_program("conda-pack", "conda")
    records = package_records(prefix)
    # The content of packages: conda's by their own hashes, pip's by their lists of files.
    own = [
        [r["name"], r["version"], r["build"], r.get("sha256") or r.get("md5") or r.get("url")]
        for r in records
    ]
    lists = sorted(prefix.glob("lib/python*/site-packages/*.dist-info/RECORD"))
    content = digest_of(own, [[file.parent.name, hash_of(file)] for file in lists])
    packer = f"conda-pack {version}"
    bare = conda_plan(request, host, records, where=prefix, content=content, name=prefix.name, packer=packer)

    def make(place: Path, destination: str) -> None:
        argv = [program, "--prefix", str(prefix), "--dest-prefix", destination, "--format", "no-archive"]
        run_program([*argv, "--quiet", "--output", str(place)], where=str(prefix))

    return packed(bare, host.workdir, make)


def _prefix(request: Request[CondaEnvironment]) -> Path:
    prefix = request.path("prefix")
    if not (prefix / "conda-meta").is_dir():
        raise EnvironmentFailedError(
            "no conda environment lies there (it has no folder conda-meta)",
            where=str(prefix),
            hint="`prefix` is a folder on the machine that runs Dagster; for one on the host use `type: path`.",
        )
    return prefix
