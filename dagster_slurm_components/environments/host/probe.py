"""What the host is: its platform, its C library, its Pythons."""

import contextlib
import glob
import os
import shutil
import sys
from typing import List, Tuple

from dagster_slurm_components.environments.host.tools import Json, Problem, activated, execute, run

_ASK = (
    "import sys, os, sysconfig;"
    "base = getattr(sys, '_base_executable', None) or sys.executable;"
    "print(os.path.realpath(base));"
    "print('%d.%d.%d' % sys.version_info[:3]);"
    "print(sys.implementation.name);"
    "print('t' if sysconfig.get_config_var('Py_GIL_DISABLED') else '')"
)


def probe(order: Json) -> Json:
    """Return the platform and the Pythons that are here, under the given modules and setup files."""
    env = activated(order.get("activation", {}))
    path = env.get("PATH", os.defpath)
    names = ["python3"] + ["python3.%d" % minor for minor in range(16, 7, -1)]
    if order.get("python"):
        names = [order["python"]]
    programs = [shutil.which(os.path.expanduser(name), path=path) for name in names]
    interpreters: List[Json] = []
    for program in dict.fromkeys(filter(None, programs)):
        with contextlib.suppress(Problem):
            lines = execute([program, "-I", "-c", _ASK], env).decode("utf-8", "surrogateescape").split("\n")
            python = dict(zip(("path", "version", "implementation", "abi_flags"), lines))
            if python not in interpreters:
                interpreters.append(python)
    libc, version = c_library()
    here = {"system": sys.platform, "machine": os.uname().machine, "libc": libc, "libc_version": version}
    return dict(here, interpreters=interpreters)


def c_library() -> Tuple[str, List[int]]:
    """Return the C library and its version; on macOS the version of the system."""
    if sys.platform == "darwin":
        import platform

        return "", [int(part) for part in (platform.mac_ver()[0] + ".0").split(".")[:2]]
    with contextlib.suppress(AttributeError, OSError, ValueError):
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        if name == "glibc":
            return name, [int(part) for part in version.split(".")[:2]]
    for loader in glob.glob("/lib/ld-musl-*.so.1"):
        for line in run([loader], dict(os.environ)).stderr.decode("ascii", "replace").splitlines():
            if line.startswith("Version "):
                return "musl", [int(part) for part in line.split()[1].split(".")[:2]]
    return "", [0, 0]
