"""From a ``pylock.toml`` to the files that one platform needs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from packaging import tags
from packaging.markers import Environment, Marker
from packaging.pylock import PackageVcs, Pylock, PylockSelectError, PylockValidationError
from packaging.utils import canonicalize_name

from dagster_slurm_components.environments.content import Interpreter, Platform
from dagster_slurm_components.errors import DagsterSlurmError

# The oldest glibc that a wheel's tag may name: 2.5 came with manylinux1, and other machines than x86 joined
# with manylinux2014.
_OLDEST_GLIBC = {"x86_64": 5, "i686": 5}
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True)
class LockedFile:
    """What a lock says of one Python package on one platform.

    Attributes:
        package: Its normalised name.
        version: Its version; a local project may have none in the lock.
        name: The file's name.
        location: URL, or a path as written in the lock.
        sha256: The file's hash; none for a local project.
        size: Bytes, where the lock says it.
    """

    package: str
    version: str | None
    name: str
    location: str
    sha256: str | None = None
    size: int | None = None

    @property
    def source(self) -> Literal["wheel", "sdist", "folder"]:
        """What it is: a ready wheel, a source archive, or a local project."""
        if self.sha256 is None:
            return "folder"
        return "wheel" if self.name.endswith(".whl") else "sdist"


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
    environment, fitting = _marker_environment(interpreter, platform), _tags(interpreter, platform)
    chosen: list[LockedFile] = []
    lacking: list[str] = []
    for package in lock.get("packages", []):
        if "marker" in package and not Marker(package["marker"]).evaluate(
            cast("dict[str, str]", environment)
        ):
            continue
        # A lock of each package alone: all that lack a file are named, not just the first.
        alone = {"lock-version": "1.0", "created-by": "", "packages": [_usable(package, allowed)]}
        try:
            ((_, found),) = Pylock.from_dict(alone).select(environment=environment, tags=fitting)
        except (PylockValidationError, PylockSelectError):
            lacking.append(_lack(package))
            continue
        assert not isinstance(found, PackageVcs)  # noqa: S101 - no such source is usable
        location = getattr(found, "url", None) or found.path or ""
        hashes = getattr(found, "hashes", {})
        name = file_name(getattr(found, "name", None) or location)
        chosen.append(
            LockedFile(
                canonicalize_name(package["name"]),
                package.get("version"),
                name,
                location,
                hashes.get("sha256"),
                getattr(found, "size", None),
            )
        )
    if lacking:
        raise DagsterSlurmError(
            f"no usable file for Python {interpreter.version} on {platform}:\n" + "\n".join(lacking),
            where=file,
            hint="Choose another version of the package, another `python`, or give the package as a wheel.",
        )
    return tuple(chosen)


def _usable(package: Mapping[str, Any], allowed: Mapping[str, frozenset[str]] | None) -> dict[str, Any]:
    """Return a package with those files alone whose sha256 is in the lock, and is allowed."""
    name = canonicalize_name(package["name"])
    hashes = None if allowed is None else allowed.get(name, frozenset())

    def fits(entry: Mapping[str, Any]) -> bool:
        digest = entry.get("hashes", {}).get("sha256")
        return digest is not None and (hashes is None or digest in hashes)

    usable = {key: package[key] for key in ("version", "directory") if key in package}
    wheels = list(package.get("wheels", []))
    for key in ("archive", "sdist"):
        entry = package.get(key)
        if entry and _name_of(entry).endswith(".whl"):  # named by its URL: its tags count like any wheel's
            wheels.append(entry)
        elif entry and fits(entry):
            usable[key] = entry
    return {**usable, "name": name, "wheels": sorted(filter(fits, wheels), key=_name_of)}


def _name_of(entry: Mapping[str, Any]) -> str:
    return file_name(str(entry.get("name") or entry.get("url") or entry.get("path") or ""))


def file_name(location: str) -> str:
    """Return the file's name in a URL or path; only the ``+`` of local versions is unquoted."""
    return location.partition("#")[0].rpartition("/")[2].replace("%2B", "+").replace("%2b", "+")


def _lack(package: Mapping[str, Any]) -> str:
    name = f"  {package['name']} {package.get('version', '')}".rstrip()
    if "vcs" in package:
        return f"{name} comes from version control ({package['vcs'].get('url')}), which has no hash to verify"
    names = [_name_of(wheel) for wheel in package.get("wheels", [])]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{name}: " + (
        f"the lock has {', '.join(names[:4])}{more}" if names else "the lock names no file with a sha256"
    )


def _tags(interpreter: Interpreter, platform: Platform) -> Sequence[tags.Tag]:
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


def _marker_environment(interpreter: Interpreter, platform: Platform) -> Environment:
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
