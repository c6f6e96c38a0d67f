"""From a ``pylock.toml`` to the files that one platform needs. Pure."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from packaging import tags
from packaging.markers import Marker
from packaging.utils import canonicalize_name, parse_wheel_filename

from dagster_slurm_components.environments.content import Artifact, ArtifactKind, Interpreter, Platform
from dagster_slurm_components.environments.host.store import without_login
from dagster_slurm_components.errors import DagsterSlurmError

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

# The oldest glibc that a wheel's tag may name: 2.5 came with manylinux1, and other machines than x86 joined
# with manylinux2014.
_OLDEST_GLIBC = {"x86_64": 5, "i686": 5}
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


class LockedPackage(NamedTuple):
    """What a lock says of one Python package on one platform: its normalised name, and its best file.

    That is a wheel, else a source archive; or the folder of a local project or a commit, which have no hash.
    """

    name: str
    file: Artifact


def locked_file(
    lock: Path, location: str, sha256: str | None, size: int | None = None, name: str | None = None
) -> Artifact:
    """Return the file that a lock names by a URL or a path, and perhaps by a name."""
    # Of what a URL quotes only the `+` of local versions is part of a file's name.
    own = location.partition("#")[0].rpartition("/")[2].replace("%2B", "+").replace("%2b", "+")
    name, url = name or own, location if "://" in location else None
    path = None if url else str((lock.parent / location).resolve())
    kind: ArtifactKind = "folder" if sha256 is None else "wheel" if name.endswith(".whl") else "archive"
    inside = parse_qs(urlsplit(location).fragment).get("subdirectory", [""])[0] if url else ""
    return Artifact(name, sha256 or "", size, kind, url=url, path=path, lock=str(lock), subdirectory=inside)


def locked_commit(lock: Path, name: str, url: str, commit: str, subdirectory: str = "") -> Artifact:
    """Return the commit of a git repository that a lock names; it has no hash but its own.

    Raises:
        DagsterSlurmError: It is a branch or tag, which may be another content tomorrow.
    """
    if not COMMIT.fullmatch(commit):
        text = (
            f"{name} comes from {without_login(url)}, and the lock names no full commit of it, but {commit!r}"
        )
        raise DagsterSlurmError(text, where=str(lock), hint="Lock anew.")
    return Artifact(
        name, "", None, "commit", url=url, identity=commit, lock=str(lock), subdirectory=subdirectory
    )


def locked_packages(
    lock: Mapping[str, Any],
    interpreter: Interpreter,
    platform: Platform,
    where: Path,
    allowed: Mapping[str, frozenset[str]] | None = None,
) -> list[LockedPackage]:
    """Return the packages that a Python on a platform needs, each with its best file.

    Of the file ``where`` the lock was made; ``allowed`` are the hashes by package that alone may be used.

    Raises:
        DagsterSlurmError: A package has no file that fits, or one without a hash.
    """
    environment = _marker_environment(interpreter, platform)
    fitting = tags.create_compatible_tags_selector(wheel_tags(interpreter, platform))
    chosen: list[LockedPackage] = []
    lacking: list[str] = []
    for package in lock.get("packages", []):
        if "marker" in package and not Marker(package["marker"]).evaluate(environment):
            continue
        name = canonicalize_name(package["name"])
        files = _usable(package, where, None if allowed is None else allowed.get(name, frozenset()))
        wheels = [(file, parse_wheel_filename(file.name)[-1]) for file in files if file.kind == "wheel"]
        sources = [file for file in files if file.kind != "wheel"]
        best = next(fitting(wheels), sources[0] if sources else None)
        if best is None:
            lacking.append(_lack(package))
        else:
            chosen.append(LockedPackage(name, best))
    if lacking:
        raise DagsterSlurmError(
            f"no usable file for Python {interpreter.version} on {platform}:\n" + "\n".join(lacking),
            where=str(where),
            hint="Choose another version of the package, another `python`, or give the package as a wheel.",
        )
    return chosen


def _usable(package: Mapping[str, Any], lock: Path, allowed: frozenset[str] | None) -> list[Artifact]:
    """Return a package's folder or commit, and its wheels and archives by name whose sha256 is locked and allowed."""
    entries = package.get("wheels", []) + [package[key] for key in ("archive", "sdist") if key in package]
    files = sorted((_file(entry, lock) for entry in entries), key=lambda file: file.name)
    own = [_file(package["directory"], lock)] if "directory" in package else []
    if vcs := package.get("vcs"):
        name, inside = canonicalize_name(package["name"]), vcs.get("subdirectory", "")
        own = [locked_commit(lock, name, vcs["url"], vcs["commit-id"], inside)]
    return own + [file for file in files if file.sha256 and (allowed is None or file.sha256 in allowed)]


def _file(entry: Mapping[str, Any], lock: Path) -> Artifact:
    location, digest = entry.get("url") or entry["path"], entry.get("hashes", {}).get("sha256")
    file = locked_file(lock, location, digest, entry.get("size"), entry.get("name"))
    return dataclasses.replace(file, subdirectory=entry.get("subdirectory", ""))


def _lack(package: Mapping[str, Any]) -> str:
    name = f"  {package['name']} {package.get('version', '')}".rstrip()
    names = [_file(wheel, Path()).name for wheel in package.get("wheels", [])]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    has = f"the lock has {', '.join(names[:4])}{more}" if names else "the lock names no file with a sha256"
    return f"{name}: {has}"


def wheel_tags(interpreter: Interpreter, platform: Platform) -> Sequence[tags.Tag]:
    """Return the wheel tags that fit, the best first."""
    version = interpreter.minor
    name = f"cp{version[0]}{version[1]}"
    platforms = list(_platform_tags(platform))
    return [
        *tags.cpython_tags(version, abis=[f"{name}{interpreter.abi_flags}"], platforms=platforms),
        *tags.compatible_tags(version, interpreter=name, platforms=platforms),
    ]


def _platform_tags(platform: Platform) -> Iterator[str]:
    # packaging.tags knows the platform that it runs on, and macOS's for any version; not another Linux's.
    machine = platform.machine
    if platform.system == "darwin":
        yield from tags.mac_platforms(platform.libc_version, machine)
        return
    major, minor = platform.libc_version
    if platform.libc == "glibc" and major == 2:
        for number in range(minor, _OLDEST_GLIBC.get(machine, 17) - 1, -1):
            yield f"manylinux_2_{number}_{machine}"
            if number in _LEGACY:
                yield f"{_LEGACY[number]}_{machine}"
    if platform.libc == "musl":
        yield from (f"musllinux_{major}_{number}_{machine}" for number in range(minor, -1, -1))
    yield f"{platform.system}_{machine}"


def _marker_environment(interpreter: Interpreter, platform: Platform) -> dict[str, str]:
    return {
        "implementation_name": interpreter.implementation,
        "implementation_version": interpreter.version,
        "os_name": "posix",
        "platform_machine": platform.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": platform.system.capitalize(),
        "platform_version": "",
        "python_full_version": interpreter.version,
        "python_version": "{}.{}".format(*interpreter.minor),
        "sys_platform": platform.system,
    }
