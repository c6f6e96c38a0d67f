"""A prefix as archives, one a package: what no other environment shares travels, the rest is there already."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster_slurm_components.environments.content import Artifact, EnvironmentPlan
from dagster_slurm_components.jobs.provision.cache import (
    cache_folder,
    digest_of,
    file_digest,
    new_file,
    only_one,
)

_OWN = "environment"
"""Name of the archive of files that hold the prefix's path or belong to no package: another one for each key."""


def package_records(prefix: Path) -> list[Mapping[str, Any]]:
    """Return the records of the conda packages in a prefix, by name."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in (prefix / "conda-meta").glob("*.json")]
    return sorted(found, key=lambda record: str(record["name"]))


def archives(prefix: Path, destination: str, folder: Path) -> list[Path]:
    """Write a prefix as tar files, the same bytes for the same content.

    Args:
        prefix: The prefix, its paths already those of the destination.
        destination: Where it will lie on the host.
        folder: Where the archives go.
    """
    owners: dict[str, str] = {}
    for record in package_records(prefix):
        name = f"{record['name']}-{record['version']}-{record['build']}"
        owners.update(dict.fromkeys(record.get("files", ()), name))
    groups: dict[str, list[str]] = {_OWN: []}
    mark = destination.encode("utf-8", "surrogateescape")
    for path in _entries(prefix):
        owner = owners.get(path)
        if owner is None or _holds(prefix / path, mark):
            groups[_OWN].append(path)
        else:
            groups.setdefault(owner, []).append(path)
    made = []
    for name, paths in sorted(groups.items()):
        target = folder / f"{name}.tar"
        with new_file(target) as file:
            _pack(prefix, paths, file)
        made.append(target)
    return made


def archive_artifact(path: Path) -> Artifact:
    """Return an archive as an artifact."""
    size = path.stat().st_size
    return Artifact(path.name, file_digest(path), size, "archive", path=str(path), identity=path.name)


def packed(plan: EnvironmentPlan, workdir: str, make: Callable[[Path, str], None]) -> EnvironmentPlan:
    """Return a plan with the archives of its prefix, which is made once for each key and working folder.

    Args:
        plan: The plan without archives, whose key is final.
        workdir: The working folder on the host.
        make: Makes the prefix in a folder here, with the paths of its place on the host.
    """
    destination = f"{workdir}/envs/{plan.key}/prefix"
    name = digest_of(destination, plan.key)[:40]
    folder = cache_folder("packed", name)
    with only_one(f"packed-{name}"):
        if not (folder / ".done").exists():
            with tempfile.TemporaryDirectory(dir=folder) as aside:
                place = Path(aside) / "prefix"
                make(place, destination)
                made = archives(place, destination, folder)
                known = {"names": [path.name for path in made], "brought": distributions(place)}
            with new_file(folder / ".done") as file:
                file.write_text(json.dumps(known))
    known = json.loads((folder / ".done").read_text())
    found = tuple(archive_artifact(folder / name) for name in known["names"])
    return dataclasses.replace(
        plan, artifacts=(*plan.artifacts, *found), unpack=tuple(known["names"]), brought=known["brought"]
    )


def _entries(prefix: Path) -> Iterator[str]:
    """Yield all files, links and empty folders of a prefix."""
    for where, folders, files in os.walk(prefix):
        relative = os.path.relpath(where, prefix)
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        for name in sorted([*files, *links]):
            yield os.path.normpath(os.path.join(relative, name))
        if not folders and not files and relative != ".":
            yield relative


def _holds(path: Path, mark: bytes) -> bool:
    if path.is_symlink():
        return mark in os.fsencode(os.readlink(path))
    return path.is_file() and mark in path.read_bytes()


def _pack(prefix: Path, paths: Sequence[str], target: Path) -> None:
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in paths:
            member = archive.gettarinfo(str(prefix / path), arcname=path)
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            # Compiled bytecode knows its source by this time: whole seconds, and the same for every user.
            member.mtime = int(member.mtime)
            member.mode = 0o700 if member.isdir() or member.mode & 0o100 else 0o600
            if member.islnk():  # two names of one file in the prefix: each is packed whole
                member.type, member.linkname = tarfile.REGTYPE, ""
                member.size = (prefix / path).stat().st_size
            if member.isreg():
                with (prefix / path).open("rb") as file:
                    archive.addfile(member, file)
            else:
                archive.addfile(member)


def distributions(prefix: Path) -> dict[str, str]:
    """Return the Python packages of a prefix, as its interpreter will report them: version by name."""
    found = {}
    for info in prefix.glob("lib/python*/site-packages/*.dist-info"):
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        found["-".join(part for part in name.lower().replace(".", "_").split("_") if part)] = version
    return found


def tree_state(prefix: Path) -> str:
    """Return a hash that changes when packages of a prefix come, go or are touched; reads no file."""
    digest = hashlib.sha256()
    places = [prefix / "conda-meta", *sorted(prefix.glob("lib/python*/site-packages"))]
    for place in places:
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            found = entry.stat(follow_symlinks=False)
            when = 0 if stat.S_ISDIR(found.st_mode) and entry.name == "__pycache__" else found.st_mtime_ns
            digest.update(f"{entry.path}\0{when}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
