"""Install what the tests' Slurm is made of, where that is possible; otherwise say why its tests are skipped."""

from __future__ import annotations

import sys

from dagster_slurm_components.cluster.packages import ensure_packages, missing_packages
from dagster_slurm_components.errors import DagsterSlurmError


def main() -> None:
    """Install missing packages; a machine where that can't be done is no error here."""
    missing = missing_packages()
    if not missing:
        return
    print(f"installing Slurm's packages for the tests: {', '.join(missing)}", flush=True)
    try:
        ensure_packages(install=True, report=lambda line: None)
    except DagsterSlurmError as error:
        print(f"Tests that need Slurm will be skipped: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
