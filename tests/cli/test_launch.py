"""`dg-slurm launch`: a line for each asset, at the end what failed and why, and the exit status of `dg launch`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from project_fixture import Project
from waiting import PATIENCE

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def launch(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Launch:
    logs = tmp_path_factory.mktemp("logs")
    root = Path(__file__).parents[2]
    project.scripts(
        """
        scripts:
          - command: [sleep, "0.1"]
            assets: [{key: good}, {key: also/good}]
          - command: [bash, -c, "echo the disk of dreams is full >&2; exit 3"]
            assets: [{key: bad}]
          - command: ["true"]
            op: {backfill_policy: {type: single_run}}
            assets:
              - {key: parts, partitions_def: {type: static, partition_keys: [a, b, c]}}
        """
    )
    variables = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER_")}
    variables |= {"PYTHONPATH": f"{root}:{project.root / 'src'}", "TMPDIR": str(logs)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "dagster_slurm_components.cli.main", "launch", *words]
        done = subprocess.run(
            argv,
            cwd=project.root,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        left = [path.suffix for path in logs.iterdir()]
        assert left == ([".log"] if done.returncode else []), "the log of a failure is kept, nothing else"
        return done

    return run


def test_a_line_for_each_asset_and_the_end(launch: Launch) -> None:
    done = launch("--assets", "good,also/good")
    assert done.returncode == 0, done.stdout + done.stderr
    started, succeeded, end = done.stdout.splitlines()
    assert sorted(started.removeprefix("  started    ").split(", ")) == ["also/good", "good"]
    assert succeeded == started.replace("started  ", "succeeded")
    assert end.startswith("run ")
    assert end.endswith(" succeeded")


def test_a_range_is_one_line_not_one_for_each_partition(launch: Launch) -> None:
    done = launch("--assets", "parts", "--partition-range", "a...c")
    assert done.stdout.startswith("  started    parts (3 partitions)\n  succeeded  parts (3 partitions)\n")
    assert launch("--assets", "parts", "--partition", "b").stdout.startswith("  started    parts\n")


def test_what_failed_and_why(launch: Launch) -> None:
    done = launch("--assets", "good,bad,also/good")
    assert done.returncode == 1
    assert "  failed     bad\n" in done.stdout
    assert "\n  succeeded  " in done.stdout
    assert "bad: Job" in done.stdout
    assert "the disk of dreams is full" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_selection_that_selects_nothing_is_told_in_dg_s_words(launch: Launch) -> None:
    done = launch("--assets", "nosuch")
    assert done.returncode == 1
    assert "no run was started" in done.stderr
    assert "AssetKey(s) ['nosuch'] were selected" in done.stderr
    assert len(done.stderr.splitlines()) < 8
