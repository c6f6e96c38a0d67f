"""`dg-slurm advise` says what to ask for instead, and prints a patch that changes exactly that."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from project_fixture import Project

from dagster_slurm_components.cli.main import main

SCRIPTS = """
defaults: {resources: {time: "1-00:00:00"}}   # of all
scripts:
  - payload: train.sh          # the large one
    resources:
      mem: 256G                # more than enough?
      cpus_per_task: 16
    assets: [{key: model}, {key: report}]
    profiles: {big: {resources: {cpus_per_task: 32}}}
  - command: ["true"]
    resources: {mem: "{{ env('NO_MEM', '64G') }}"}
    assets: [{key: small}]
"""
JOB = {"job/state": "COMPLETED", "job/elapsed_s": 7200.0, "job/memory_max_mib": 6000.0, "job/cpus_busy": 1.02}


@pytest.fixture
def ready(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    home = tmp_path / "dagster home"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.delenv("DAGSTER_SLURM_PROFILE", raising=False)
    for name in ("small", "big"):
        project.profile(name, "scheduler: slurm\n")
    project.write("train.sh", "echo trained\n")
    project.scripts(SCRIPTS)
    return project


def made(asset: str, number: int, profile: str = "small", **figures: Any) -> None:
    """Store what a job of so long ago was seen to use."""
    metadata: Mapping[str, Any] = {
        **JOB,
        "job/profile": profile,
        "job/run_directory": dg.MetadataValue.path(f"/runs/{number}"),
        **{f"job/{name}": value for name, value in figures.items()},
    }
    with dg.DagsterInstance.get() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata=metadata))


def advise(*args: str) -> Result:
    done = CliRunner().invoke(main, ["advise", *args])
    assert done.exit_code == 0, done.output
    return done


def test_the_patch_changes_what_it_says_and_nothing_else(ready: Project) -> None:
    for number, memory in enumerate((4000.0, 6000.0, 150_000.0, 5000.0)):
        for asset in ("model", "report"):
            made(asset, number, memory_max_mib=memory)
    file = "src/" + str(ready.defs.relative_to(ready.root / "src")) + "/defs.yaml"
    done = advise("model", "--last", "1")
    assert done.stderr.splitlines() == [
        f"model (small, 1 of 1 runs): used 4.9 of 256 GiB: `mem: 8G` would do ({file}:8)",
        f"model (small, 1 of 1 runs): 1 of 16 CPUs used: `cpus_per_task: 1` would do ({file}:9)",
    ]
    before = (ready.defs / "defs.yaml").read_text()
    patch = ready.root / "the.patch"
    patch.write_text(done.stdout)
    git = shutil.which("git")
    assert git
    subprocess.run([git, "apply", patch], cwd=ready.root, check=True)
    after = (ready.defs / "defs.yaml").read_text()
    assert after == before.replace("mem: 256G ", "mem: 8G ").replace("task: 16", "task: 1")


def test_what_one_run_needed_is_left_to_all(ready: Project) -> None:
    for number, memory in enumerate((4000.0, 150_000.0, 5000.0)):
        made("model", number, memory_max_mib=memory, cpus_busy=14.0)
    assert advise().output == ""
    for number in range(3, 13):
        made("model", number, cpus_busy=14.0)
    (note,) = json.loads(advise("--json").stdout)["advice"]
    assert (note["option"], note["value"], note["runs"], note["of"]) == ("mem", "10G", 10, 10)


def test_a_profile_of_its_own_has_its_own_advice(ready: Project) -> None:
    made("model", 1, "big", memory_max_mib=200_000.0, cpus_busy=7.6)
    made("model", 2, "small", memory_max_mib=200_000.0, cpus_busy=15.0)
    made("model", 3, "gone")
    (note,) = json.loads(advise("--json").stdout)["advice"]
    assert (note["profile"], note["value"]) == ("big", "8")
    assert "+      profiles: {big: {resources: {cpus_per_task: 8}}}" in advise("--profile", "big").stdout
    assert advise("--profile", "small").output == ""


def test_what_others_take_too_is_named_and_left(ready: Project) -> None:
    made("small", 1, elapsed_s=86_000.0)
    done = advise("small")
    assert done.stdout == ""
    first, second = sorted(done.stderr.splitlines())
    assert "ended 7 min before its 24 h limit" in first
    assert first.endswith(":4); not in the patch: it is written in defaults, for other scripts too")
    assert second.endswith(":13); not in the patch: it is a template")


def test_mistakes(ready: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(main, ["advise", "modle"])
    assert done.exit_code == 1
    assert "no script in YAML makes `modle`" in done.output
    assert "did you mean `model`?" in done.output
    monkeypatch.delenv("DAGSTER_HOME")
    done = CliRunner().invoke(main, ["advise"])
    assert done.exit_code == 1
    assert "DAGSTER_HOME" in done.output
