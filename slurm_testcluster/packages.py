"""The Debian packages a cluster is made of, and their programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from slurm_testcluster.errors import ClusterError, ClusterUnavailableError

INSTALL = Path(__file__).with_name("install.sh")

# Which program proves that a package is there.
PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmdbd": "slurmdbd",
    "slurm-client": "sbatch",
    "munge": "munged",
    "openssh-server": "sshd",
    "openssh-client": "ssh-keygen",
    "mariadb-server-core": "mariadbd",
    "mariadb-client-core": "mariadb",
}
# Loaded by name at run time, and not pulled in by all releases of the packages above.
PLUGINS = ("slurm-wlm-basic-plugins", "slurm-wlm-mysql-plugin")

NONE: Mapping[str, str] = MappingProxyType({})

SEARCH_PATH = os.pathsep.join(
    [os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]
)


def find_program(name: str) -> str:
    """Return the full path of a program, also from the sbin folders that a user's PATH may lack.

    Raises:
        ClusterError: There is none.
    """
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        raise ClusterError(f"the program {name} is missing", hint="`dg-slurm cluster up` installs it.")
    return path


def slurm_version() -> tuple[int, int]:
    """Return the release of the Slurm that is installed, such as ``(24, 11)``.

    Raises:
        ClusterError: There is none, or it doesn't say.
    """
    answer = subprocess.run([find_program("slurmd"), "-V"], capture_output=True, text=True, check=False)
    found = re.search(r"\b(\d+)\.(\d+)\.", answer.stdout)
    if found is None:
        raise ClusterError(f"`slurmd -V` names no version: {answer.stdout}{answer.stderr}")
    return int(found[1]), int(found[2])


def missing_packages(also: Mapping[str, str] = NONE) -> list[str]:
    """Return the packages, of a cluster and ``also`` others, whose program is not there."""
    wanted = {**PACKAGES, **also}
    return [package for package, program in wanted.items() if shutil.which(program, path=SEARCH_PATH) is None]


def ensure_packages(
    *, install: bool, report: Callable[[str], None], also: Mapping[str, str] = NONE, with_: Sequence[str] = ()
) -> None:
    """Install what is missing, by apt-get, as root or through ``sudo -n``.

    Args:
        install: Whether to install, or only to check.
        report: Receives each line of apt-get.
        also: More packages than a cluster needs, and a program of each.
        with_: Packages without a program of their own, installed along with missing ones.

    Raises:
        ClusterError: Something is missing and can't or may not be installed.
    """
    missing = missing_packages(also)
    if not missing:
        return
    names, listed = [*missing, *PLUGINS, *with_], ", ".join(missing)
    by_hand = f"Install by hand: sudo apt-get install --no-install-recommends {' '.join(names)}"
    if not install:
        raise ClusterUnavailableError(f"packages are missing: {listed}", hint=by_hand)
    if shutil.which("apt-get") is None:
        raise ClusterUnavailableError(
            f"packages are missing ({listed}), and there is no apt-get to install them",
            hint="The test cluster runs on Debian and Ubuntu; use a Debian container or machine.",
        )
    sudo = [] if os.getuid() == 0 else ["sudo", "-n"]
    if sudo and not (shutil.which("sudo") and _succeeds([*sudo, "true"])):
        problem = f"packages are missing ({listed}); to install them takes root, or sudo without a password"
        raise ClusterUnavailableError(problem, hint=by_hand)
    _run_installer([*sudo, "/bin/sh", str(INSTALL), *names], by_hand, report)


def _run_installer(argv: list[str], by_hand: str, report: Callable[[str], None]) -> None:
    lines: list[str] = []
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as apt:
        assert apt.stdout is not None  # noqa: S101 -- for the type checker: PIPE was asked for
        for line in apt.stdout:
            lines.append(line.rstrip())
            report(line.rstrip())
    if apt.returncode != 0:
        raise ClusterError(
            "apt-get could not install the packages:\n" + "\n".join(lines[-15:]),
            hint=f"`apt-get update` helps if packages were not found. {by_hand}",
        )
    missing = ", ".join(missing_packages())
    if missing:
        raise ClusterError(f"apt-get ended well, but programs of these packages are missing: {missing}")


def _succeeds(argv: list[str]) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
