"""Which wheels fit a Python on a platform, and what its environment markers are. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from packaging import tags

from dagster_slurm_components.environments.content import Interpreter, Platform

# The oldest glibc that a wheel's tag may name: 2.5 came with manylinux1, and other machines than x86 joined
# with manylinux2014.
_OLDEST_GLIBC = {"x86_64": 5, "i686": 5}
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


def supported_tags(interpreter: Interpreter, platform: Platform) -> dict[tags.Tag, int]:
    """Return the wheel tags that fit, each with its rank; 0 fits best."""
    version = interpreter.minor
    name = f"cp{version[0]}{version[1]}"
    platforms = list(_platform_tags(platform))
    found = [
        *tags.cpython_tags(version, abis=[f"{name}{interpreter.abi_flags}"], platforms=platforms),
        *tags.compatible_tags(version, interpreter=name, platforms=platforms),
    ]
    ranks: dict[tags.Tag, int] = {}
    for rank, tag in enumerate(found):
        ranks.setdefault(tag, rank)
    return ranks


def _platform_tags(platform: Platform) -> Iterator[str]:
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
        for number in range(minor, -1, -1):
            yield f"musllinux_{major}_{number}_{machine}"
    yield f"{platform.system}_{machine}"


def marker_environment(interpreter: Interpreter, platform: Platform) -> dict[str, str]:
    """Return the values that the markers of a lock file are evaluated with."""
    return {
        "implementation_name": interpreter.implementation,
        "implementation_version": interpreter.version,
        "os_name": "posix",
        "platform_machine": platform.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Darwin" if platform.system == "darwin" else platform.system.capitalize(),
        "platform_version": "",
        "python_full_version": interpreter.version,
        "python_version": "{}.{}".format(*interpreter.minor),
        "sys_platform": platform.system,
        "extra": "",
    }
