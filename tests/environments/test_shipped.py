"""What runs on hosts and in jobs: old Pythons, and nothing but the standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "dagster_slurm_components" / "environments"


@pytest.mark.parametrize(
    ("path", "oldest"), [("host/builder.py", "3.6"), ("job/verify_environment.py", "3.7")]
)
def test_shipped_programs_run_on_old_pythons(path: str, oldest: str):
    vermin = Path(sys.executable).with_name("vermin")
    argv = [str(vermin), f"--target={oldest}-", "--violations", "--eval-annotations", str(PACKAGE / path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
