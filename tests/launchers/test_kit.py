"""The test kit, used as another package would: a launcher found by its entry point, planned, and run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dagster_slurm_components.launchers.testing import run_launcher
from dagster_slurm_components.spec.launchers import BashLauncher

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "how-to" / "add-a-launcher.md"


def test_a_payload_runs_and_its_end_is_told(tmp_path: Path):
    outcome = run_launcher(
        BashLauncher(), "import sys; print(sys.argv[1:]); sys.exit(3)", folder=tmp_path / "a b", args=["x y"]
    )
    assert (outcome.exit_code, outcome.stdout) == (3, "['x y']\n")
    assert outcome.status["exit"] == "3"


def test_variables_reach_the_payload(tmp_path: Path):
    outcome = run_launcher(
        BashLauncher(), ["printenv", "NOTE"], folder=tmp_path / "run", env={"NOTE": "a 'b' $(c)"}
    )
    assert outcome.stdout == "a 'b' $(c)\n"


def test_a_run_that_takes_too_long_ends(tmp_path: Path):
    with pytest.raises(subprocess.TimeoutExpired):
        run_launcher(BashLauncher(), ["sleep", "5"], folder=tmp_path / "run", timeout=0.3)


@pytest.mark.slow
def test_the_example_of_the_guide_works(tmp_path: Path):
    """Its files make a package; installed, the launcher is found by its type and its own test passes."""
    blocks = re.findall(r"```\w+\n# (\S+)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    for name, text in blocks:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    info = tmp_path / "dagster_slurm_twice-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dagster-slurm-twice\nVersion: 1.0\n")
    points = re.search(
        r'entry-points\."(.*?)"\]\n(.*?)\n\n', (tmp_path / "pyproject.toml").read_text() + "\n\n", re.DOTALL
    )
    assert points is not None
    (info / "entry_points.txt").write_text(f"[{points[1]}]\n" + points[2].replace('"', "") + "\n")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "tests")]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    completed = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout
    assert "2 passed" in completed.stdout
