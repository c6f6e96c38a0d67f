"""Install what the tests' Slurm and sshd are made of, where that is possible; else say why tests are skipped."""

from __future__ import annotations

import sys

from slurm_testcluster.errors import ClusterError
from slurm_testcluster.packages import ensure_packages, missing_packages

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


def main() -> None:
    """Install missing packages; a machine where that can't be done is no error here."""
    missing = missing_packages(PROGRAMS)
    if not missing:
        return
    print(f"installing Slurm's packages for the tests: {', '.join(missing)}", flush=True)
    try:
        ensure_packages(install=True, report=lambda line: None, also=PROGRAMS, with_=MODULES)
    except ClusterError as error:
        print(f"Tests that need Slurm will be skipped: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
