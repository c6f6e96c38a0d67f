"""Install what the tests' Slurm and sshd are made of, where that is possible; else say why tests are skipped.

Usage: slurm_packages.py [--optional]

``--optional`` then tries what only some tests need and not every system has: none of it costs the others anything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

from slurm_testcluster.errors import ClusterError
from slurm_testcluster.packages import INSTALL, ensure_packages, missing_packages

PROGRAMS = {
    "oathtool": "oathtool",
    "tcsh": "tcsh",
    "zsh": "zsh",
    "fish": "fish",
    "ksh": "ksh",
    "squashfs-tools": "mksquashfs",
    "squashfuse": "squashfuse",
    "fuse3": "fusermount3",
    "lmod": "/usr/share/lmod/lmod/libexec/lmod",
    "r-base-core": "Rscript",
    "postgresql": "pg_ctlcluster",
}
"""What tests need beside a cluster, and a program of each: one-time passwords, login shells that are no sh,
environments as images, modules, R, and a database for Dagster."""
MODULES = ("libpam-oath", "debian-archive-keyring")
OPTIONAL = {
    "tests in a browser": {"chromium": "chromium", "chromium-driver": "chromedriver"},
    "the test of a real debugpy": {"gdb": "gdb"},
}
"""What else some tests need, each installed by itself, and a program of each package."""


def main() -> None:
    """Install missing packages; a machine where that can't be done is no error here."""
    _needed()
    if "--optional" in sys.argv[1:]:
        for tests, programs in OPTIONAL.items():
            _optional(tests, programs)


def _needed() -> None:
    missing = missing_packages(PROGRAMS)
    if not missing:
        return
    print(f"installing Slurm's packages for the tests: {', '.join(missing)}", flush=True)
    try:
        ensure_packages(install=True, report=lambda line: None, also=PROGRAMS, with_=MODULES)
    except ClusterError as error:
        print(f"Tests that need Slurm will be skipped: {error}", file=sys.stderr)


def _optional(tests: str, programs: Mapping[str, str]) -> None:
    missing = [package for package in missing_packages(programs) if package in programs]
    if not missing:
        return
    print(f"installing packages for {tests}: {', '.join(missing)}", flush=True)
    as_root = [] if os.getuid() == 0 else ["sudo", "-n"]
    if not all(map(shutil.which, ("apt-get", *as_root[:1]))):
        print(f"{tests} will be skipped: that takes apt-get, and root or sudo", file=sys.stderr)
        return
    done = subprocess.run(
        [*as_root, "/bin/sh", str(INSTALL), *missing],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        why = [line for line in done.stdout.splitlines() if line.startswith(("E:", "sudo:"))]
        print(f"{tests} will be skipped: {why[-1] if why else done.stdout[-300:]}", file=sys.stderr)


if __name__ == "__main__":
    main()
