"""Environments of type ``conda``: a prefix that is on this machine, packed by conda-pack; and prefixes as archives.

A prefix travels as archives, one a package: what no other environment shares is sent, the rest is there already.
"""

import dataclasses
import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from dagster_slurm_components.environments.content import (
    Artifact,
    EnvironmentPlan,
    HostPlatform,
    Interpreter,
    Platform,
    Progress,
    Request,
)
from dagster_slurm_components.environments.host.tools import hash_of, new_file
from dagster_slurm_components.environments.machine import (
    cache_folder,
    digest_of,
    find_program,
    only_one,
    recall,
    remember,
    run_program,
)
from dagster_slurm_components.errors import EnvironmentFailedError
from dagster_slurm_components.spec.environments import CondaEnvironment

# The archive of files that hold the prefix's path or belong to no package: another one for each key.
_OWN = "environment.tar"

Record = Mapping[str, Any]
"""What conda knows of a package: ``name``, ``version``, ``build``, ``subdir``..."""


def inputs(request: Request[CondaEnvironment]) -> list[object]:
    """Return what the plan follows from: the prefix, as far as names and times tell."""
    prefix = _prefix(request)
    return [str(prefix), _tree_state(prefix), find_program("conda-pack", "conda")[1]]


def plan(request: Request[CondaEnvironment], host: HostPlatform, progress: Progress) -> EnvironmentPlan:
    """Return the plan. Packs the prefix for its place on the host, once for each content."""
    prefix = _prefix(request)
    program, version = find_program("conda-pack", "conda")
    records = _records(prefix)
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


def subdir_of(platform: Platform) -> str:
    """Return what conda calls a platform: ``linux-64``, ``linux-aarch64``, ``osx-arm64``."""
    system = "osx" if platform.system == "darwin" else platform.system
    return f"{system}-{'64' if platform.machine == 'x86_64' else platform.machine}"


def _records(prefix: Path) -> list[Record]:
    """Return the records of the conda packages in a prefix, by name."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in prefix.glob("conda-meta/*.json")]
    return sorted(records, key=lambda record: str(record["name"]))


def conda_plan(
    request: Request[Any],
    host: HostPlatform,
    records: Sequence[Record],
    *,
    where: Path,
    content: str,
    name: str,
    packer: str,
) -> EnvironmentPlan:
    """Return the plan of an environment of conda packages, still without its archives.

    The packages are named by the lock or prefix ``where``; ``content`` is a hash of what they hold. Raises
    EnvironmentFailedError if one is for another platform.
    """
    wanted = subdir_of(host.platform)
    others = sorted({str(record["subdir"]) for record in records} - {"noarch", wanted})
    if others:
        raise EnvironmentFailedError(
            f"it is made for {', '.join(others)}, and the host is {wanted}",
            where=str(where),
            hint="Make the prefix for the host's platform, or use an environment of type `pixi`, which can be locked"
            " for several platforms.",
        )
    conda = {record["name"]: f"{record['version']} {record['build']}" for record in records}
    pythons = [record["version"] for record in records if record["name"] == "python"]
    return EnvironmentPlan(
        kind=request.spec.type,
        name=name,
        platform=host.platform,
        packer=packer,
        interpreter=Interpreter("prefix/bin/python", pythons[0]) if pythons else None,
        inputs={**request.prerequisites, "conda": conda, "content": content},
    )


def packed(plan: EnvironmentPlan, workdir: str, make: Callable[[Path, str], None]) -> EnvironmentPlan:
    """Return a plan with the archives of its prefix, which is made once for each key and working folder.

    ``make`` puts the prefix into a folder here, with the paths of its place on the host. The key is final before.
    """
    destination = f"{workdir}/envs/{plan.key}/prefix"
    name = digest_of(destination, plan.key)[:40]
    folder = cache_folder("packed", name)
    with only_one(f"packed-{name}"):
        state = recall(f"packed/{name}", "done")
        if state is None:
            with tempfile.TemporaryDirectory(dir=folder) as aside:
                place = Path(aside) / "prefix"
                make(place, destination)
                state = {"names": _archives(place, destination, folder), "brought": _distributions(place)}
            remember(f"packed/{name}", "done", state)
    archives = [
        Artifact(path.name, hash_of(path), path.stat().st_size, "archive", path=str(path), identity=path.name)
        for path in (folder / name for name in state["names"])
    ]
    names, artifacts = tuple(state["names"]), (*plan.artifacts, *archives)
    return dataclasses.replace(plan, artifacts=artifacts, unpack=names, brought=state["brought"])


def _archives(prefix: Path, destination: str, folder: Path) -> list[str]:
    """Write a prefix's files, links and empty folders as tars, same bytes for same content; return their names."""
    owners: dict[str, str] = {}
    for record in _records(prefix):
        name = f"{record['name']}-{record['version']}-{record['build']}.tar"
        owners.update(dict.fromkeys(record.get("files", ()), name))
    groups: dict[str, list[str]] = {_OWN: []}
    mark = destination.encode("utf-8", "surrogateescape")
    for path in sorted(prefix.rglob("*")):  # which follows no link
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir()):
            name = str(path.relative_to(prefix))
            owner = _OWN if _holds(path, mark) else owners.get(name, _OWN)
            groups.setdefault(owner, []).append(name)
    for name, paths in groups.items():
        with new_file(folder / name) as file:
            _pack(prefix, paths, file)
    return sorted(groups)


def _holds(path: Path, mark: bytes) -> bool:
    if path.is_symlink():
        return mark in os.fsencode(os.readlink(path))
    return path.is_file() and mark in path.read_bytes()


def _pack(prefix: Path, paths: Sequence[str], target: Path) -> None:
    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        # Compiled bytecode knows its source by this time: whole seconds, and the same for every user.
        member.mtime = int(member.mtime)
        member.mode = 0o700 if member.isdir() or member.mode & 0o100 else 0o600
        if member.islnk():  # two names of one file in the prefix: each is packed whole
            member.type, member.linkname = tarfile.REGTYPE, ""
            member.size = (prefix / member.name).stat().st_size
        return member

    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in paths:
            archive.add(prefix / path, arcname=path, recursive=False, filter=plain)


def _distributions(prefix: Path) -> dict[str, str]:
    """Return the Python packages of a prefix, as its interpreter will report them: version by name."""
    infos = prefix.glob("lib/python*/site-packages/*.dist-info")
    stems = [info.name.removesuffix(".dist-info").partition("-") for info in infos]
    return {canonicalize_name(name): version for name, _, version in stems}


def _tree_state(prefix: Path) -> str:
    """Return a hash that changes when packages of a prefix come, go or are touched; reads no file."""
    digest = hashlib.sha256()
    for place in [prefix / "conda-meta", *sorted(prefix.glob("lib/python*/site-packages"))]:
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            bytecode = entry.name == "__pycache__" and entry.is_dir(follow_symlinks=False)
            when = 0 if bytecode else entry.stat(follow_symlinks=False).st_mtime_ns
            digest.update(f"{entry.path}\0{when}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
