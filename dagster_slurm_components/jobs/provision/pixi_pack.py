"""Pixi environments as archives in pixi-pack's own format (version 1), for people who unpack by hand.

A tar of a channel with the conda packages, the wheels, and the environment as a file: ``pixi-unpack`` reads it, and so
does any conda or mamba (``conda env create -f environment.yml``). Read from pixi-pack 0.7.10.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dagster_slurm_components.environments.content import Artifact, Platform
from dagster_slurm_components.jobs.provision.cache import new_file
from dagster_slurm_components.jobs.provision.conda import subdir_of
from dagster_slurm_components.jobs.provision.fetch import fetch
from dagster_slurm_components.jobs.provision.pixi import Locked, locked_wheels, read_lock
from dagster_slurm_components.jobs.provision.pixi_program import fetch_packages
from dagster_slurm_components.jobs.provision.progress import Progress, silent


def write_pixi_pack(
    lock: Path,
    environment: str,
    platform: Platform,
    target: Path,
    progress: Progress = silent,
    *,
    name: str | None = None,
) -> int:
    """Write one environment of a ``pixi.lock`` as an archive; the same lock gives the same bytes.

    ``name`` is the platform's in the lock, where several are of the same kind.

    Returns:
        The archive's size in bytes.

    Raises:
        EnvironmentFailedError: The lock lacks the environment or the platform, or a file can't be fetched.
    """
    locked = read_lock(lock, environment, platform, name)
    files = fetch_packages(lock.parent, environment, subdir_of(platform), locked.conda, progress)
    wheels = fetch([wheel for _, _, wheel in locked_wheels(locked, lock.parent, progress)], progress)
    with new_file(target) as temporary, tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as archive:
        for path, source in sorted(_members(locked, files, wheels, subdir_of(platform)), key=lambda m: m[0]):
            member = tarfile.TarInfo(path)
            member.mode = 0o644
            data = source if isinstance(source, bytes) else source.read_bytes()
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target.stat().st_size


def _members(
    locked: Locked, files: list[Artifact], wheels: list[Artifact], subdir: str
) -> Iterator[tuple[str, bytes | Path]]:
    packages: dict[str, dict[str, Any]] = {"noarch": {}, subdir: {}}
    for record, file in zip(locked.records, files, strict=True):
        packages[record.subdir][file.name] = json.loads(record.to_json())
        yield f"channel/{record.subdir}/{file.name}", Path(file.path or "")
    for name, listed in packages.items():
        yield f"channel/{name}/repodata.json", _repodata(name, listed)
    for wheel in wheels:
        yield f"pypi/{wheel.name}", Path(wheel.path or "")
    yield "environment.yml", _environment(locked, wheels)
    facts = {"version": "1", "pixi-pack-version": None, "platform": subdir}
    yield "pixi-pack.json", json.dumps(facts).encode()


def _repodata(subdir: str, packages: dict[str, dict[str, Any]]) -> bytes:
    listed = {
        name: {key: value for key, value in record.items() if key not in ("url", "channel", "fn")}
        for name, record in sorted(packages.items())
    }
    tarballs = {name: record for name, record in listed.items() if not name.endswith(".conda")}
    conda = {name: record for name, record in listed.items() if name.endswith(".conda")}
    info = {"subdir": subdir}
    data = {"info": info, "packages": tarballs, "packages.conda": conda, "removed": [], "repodata_version": 2}
    return json.dumps(data, sort_keys=True).encode()


def _environment(locked: Locked, wheels: list[Artifact]) -> bytes:
    specs: list[Any] = sorted(f"{r.name.normalized}={r.version}={r.build}" for r in locked.records)
    if wheels:
        pins = sorted("==".join(wheel.name.split("-")[:2]) for wheel in wheels)
        specs += ["pip", {"pip": ["--no-index", "--find-links ./pypi", *pins]}]
    content = {"channels": ["./channel", "nodefaults"], "dependencies": specs}
    return yaml.safe_dump(content, sort_keys=False).encode()
