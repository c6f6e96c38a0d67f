"""Some of the seeded faults of ``benchmarks/faults.py``, which injects a thousand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="waits for orphans with prctl(2), which only Linux has")
@pytest.mark.parametrize("seed", [11, 12])
def test_f10_submissions_killed_and_cut_at_random_make_exactly_one_job_each(seed: int) -> None:
    """F08, F09, F10 and F41 in random combinations."""
    environment = {**os.environ, "COUNT": "15", "SEED": str(seed), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "faults.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["injections"], found["duplicates"], found["losses"], found["wrong_ids"]) == (15, 0, 0, 0)
    assert found["faults"]["killed"] > 3, "the faults must have happened"
