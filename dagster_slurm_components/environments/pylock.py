"""From a ``pylock.toml`` to the files that one platform needs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from packaging.markers import Marker
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from dagster_slurm_components.environments.content import Interpreter, Platform
from dagster_slurm_components.environments.python_tags import marker_environment, supported_tags
from dagster_slurm_components.errors import DagsterSlurmError


@dataclass(frozen=True)
class LockedFile:
    """What a lock says of one package on one platform.

    Attributes:
        package: Its normalised name.
        version: Its version; a local project may have none in the lock.
        source: ``wheel``: a ready wheel; ``sdist``: a source archive; ``folder``: a local project.
        name: The file's name; of a folder its path, as written in the lock.
        location: URL, or a path as written in the lock.
        sha256: The file's hash; none for a folder.
        size: Bytes, where the lock says it.
    """

    package: str
    version: str | None
    source: Literal["wheel", "sdist", "folder"]
    name: str
    location: str
    sha256: str | None = None
    size: int | None = None


def locked_files(
    lock: Mapping[str, Any],
    interpreter: Interpreter,
    platform: Platform,
    *,
    file: str,
    allowed: Mapping[str, frozenset[str]] | None = None,
) -> tuple[LockedFile, ...]:
    """Return the best file of each package that the platform needs.

    Args:
        lock: A ``pylock.toml``, read.
        interpreter: The Python it is for.
        platform: The platform it is for.
        file: What the lock was made from, for messages.
        allowed: Hashes by package that alone may be used; from a requirements file with hashes.

    Raises:
        DagsterSlurmError: A package has no file that fits, or one without a hash.
    """
    environment = marker_environment(interpreter, platform)
    ranks = supported_tags(interpreter, platform)
    chosen: list[LockedFile] = []
    lacking: list[str] = []
    for package in lock.get("packages", []):
        marker = package.get("marker")
        if marker and not Marker(marker).evaluate(environment):
            continue
        name = canonicalize_name(package["name"])
        found = _best(package, name, ranks, None if allowed is None else allowed.get(name, frozenset()))
        if found is None:
            lacking.append(_lack(package))
        else:
            chosen.append(found)
    if lacking:
        raise DagsterSlurmError(
            f"no usable file for Python {interpreter.version} on {platform}:\n" + "\n".join(lacking),
            where=file,
            hint="Choose another version of the package, another `python`, or give the package as a wheel.",
        )
    return tuple(chosen)


def _best(
    package: Mapping[str, Any], name: str, ranks: Mapping[Tag, int], allowed: frozenset[str] | None
) -> LockedFile | None:
    version = package.get("version")
    if "directory" in package:
        path = package["directory"]["path"]
        return LockedFile(name, version, "folder", path, path)
    files = [*package.get("wheels", [])]
    if "archive" in package:
        files.append(package["archive"])
    usable = []
    for wheel in files:
        rank = _rank(_file_name(wheel), ranks)
        if rank is not None and _is_allowed(wheel, allowed):
            usable.append((rank, _file_name(wheel), wheel))
    if usable:
        return _locked(name, version, "wheel", min(usable, key=lambda item: item[:2])[2])
    for sdist in [package.get("sdist"), package.get("archive")]:
        if sdist and _is_allowed(sdist, allowed) and not _file_name(sdist).endswith(".whl"):
            return _locked(name, version, "sdist", sdist)
    return None


def _locked(
    name: str, version: str | None, source: Literal["wheel", "sdist"], entry: Mapping[str, Any]
) -> LockedFile:
    location = entry.get("url") or entry["path"]
    return LockedFile(
        name, version, source, _file_name(entry), location, entry["hashes"]["sha256"], entry.get("size")
    )


def _file_name(entry: Mapping[str, Any]) -> str:
    location = str(entry.get("name") or entry.get("url") or entry.get("path") or "")
    return location.partition("#")[0].rpartition("/")[2].replace("%2B", "+").replace("%2b", "+")


def _is_allowed(entry: Mapping[str, Any], allowed: frozenset[str] | None) -> bool:
    digest = entry.get("hashes", {}).get("sha256")
    return digest is not None and (allowed is None or digest in allowed)


def _rank(name: str, ranks: Mapping[Tag, int]) -> int | None:
    try:
        wheel_tags = parse_wheel_filename(name)[3]
    except InvalidWheelFilename:
        return None
    return min((ranks[tag] for tag in wheel_tags if tag in ranks), default=None)


def _lack(package: Mapping[str, Any]) -> str:
    name = f"  {package['name']} {package.get('version', '')}".rstrip()
    if "vcs" in package:
        return f"{name} comes from version control ({package['vcs'].get('url')}), which has no hash to verify"
    names = [_file_name(wheel) for wheel in package.get("wheels", [])]
    return f"{name}: " + (f"the lock has {_some(names)}" if names else "the lock names no file with a sha256")


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:4])
    return listed if len(names) <= 4 else f"{listed} and {len(names) - 4} more"


def requirements(files: Sequence[tuple[str, str, str]]) -> str:
    """Return a requirements file that accepts exactly these files.

    Args:
        files: Package, version and sha256 of each.
    """
    return "".join(f"{name}=={version} --hash=sha256:{digest}\n" for name, version, digest in sorted(files))
