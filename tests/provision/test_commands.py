"""``dg-slurm env``: as a user types it, on a small project."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import project_fixture
import pytest
from click.testing import CliRunner, Result
from package_fixture import make_project, sys_executable

from dagster_slurm_components.cli.main import main

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def project(tmp_path: Path, index: Path) -> Path:
    """A Dagster project with two scripts of one environment, and a third of another."""
    made = project_fixture.make_project(tmp_path / "project")
    root, defs = made.root, made.defs
    make_project(tmp_path / "study", index, "alpha==1.0", "beta")
    make_project(tmp_path / "other", index, "gamma", name="other")
    (root / "profiles" / "local.yaml").write_text("environment: {build: deployed}\nworkdir: work\n")
    study, other = (
        f"{{type: uv, project: ../../../../../{name}, python: '{sys_executable()}'}}"
        for name in ("study", "other")
    )
    for name in ("a.py", "b.py", "c.py", "d.py"):
        (defs / name).write_text("")
    (defs / "defs.yaml").write_text(
        "type: dagster_slurm_components.SlurmScriptComponent\n"
        "attributes:\n"
        f"  defaults: {{environment: {study}}}\n"
        "  scripts:\n"
        "    - {payload: a.py, assets: [{key: a}]}\n"
        "    - {payload: b.py, assets: [{key: b}]}\n"
        f"    - {{payload: c.py, assets: [{{key: c}}], environment: {other}}}\n"
        "    - {payload: d.py, assets: [{key: d}], environment: {type: current}}\n"
    )
    return root


def run(project: Path, *argv: str) -> Result:
    return CliRunner().invoke(main, ["--project", str(project), "env", *argv, "--profile", "local"])


def answer(project: Path, *argv: str) -> Any:
    done = run(project, *argv, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_plan_deploy_list_verify(project: Path):
    planned = answer(project, "plan")
    assert [(row["name"], row["state"], row["files"], row["scripts"]) for row in planned] == [
        ("study", "missing", 3, ["a.py", "b.py"]),
        ("other", "missing", 2, ["c.py"]),
    ]
    assert not (project / "work" / "envs").exists()
    deployed = answer(project, "deploy")
    assert [row["state"] for row in deployed] == ["built", "built"]
    assert [row["key"] for row in deployed] == [row["key"] for row in planned]
    assert [row["state"] for row in answer(project, "plan")] == ["ready", "ready"]
    assert [row["state"] for row in answer(project, "deploy")] == ["ready", "ready"]
    listed = answer(project, "list")["environments"]
    assert {row["key"] for row in listed} == {row["key"] for row in planned}
    assert all(row["bytes"] > 0 and row["inodes"] > 10 for row in listed)
    assert answer(project, "verify") == {row["key"]: [] for row in planned}
    assert "study" in run(project, "list").stdout


def test_verify_names_what_differs_and_rebuild_heals(project: Path):
    study, other = answer(project, "deploy")
    part = next(Path(study["folder"]).glob("prefix/lib/python*/site-packages/alpha/part.py"))
    part.unlink()
    done = run(project, "verify")
    assert done.exit_code == 1
    assert "  missing: alpha/part.py of alpha\n" in done.stdout
    assert f"{other['key'][:12]}: as published" in done.stdout
    assert [row["state"] for row in answer(project, "deploy", "--rebuild")] == ["built", "built"]
    assert run(project, "verify").exit_code == 0


def test_build_fetches_all_that_a_deployment_sends(project: Path, own_cache: Path, index: Path):
    built = answer(project, "build")
    assert [row["name"] for row in built] == ["study", "other"]
    assert {path.name.partition("-")[2] for path in (own_cache / "files").glob("*/*")} == {
        "alpha-1.0-py3-none-any.whl",
        "beta-2.0-py3-none-any.whl",
        "gamma-3.0-py3-none-any.whl",
    }


def test_prune_keeps_what_scripts_need_what_runs_and_what_was_used_lately(
    project: Path, tmp_path: Path, index: Path
):
    study, other = answer(project, "deploy")
    make_project(tmp_path / "study", index, "alpha==1.1")
    make_project(tmp_path / "other", index, "beta", name="other")
    pruned = answer(project, "prune")
    assert pruned["removed"] == []
    assert all("days ago" in why for why in pruned["kept"].values())
    # A job that waits for its turn has no status yet.
    job = project / "work" / "runs" / "r" / "s" / "0"
    job.mkdir(parents=True)
    (job / "activate.args").write_text(f"prefix\0001\0{other['folder']}/prefix\0")
    pruned = answer(project, "prune", "--unused-for", "0s", "--dry-run")
    assert [row[0] for row in pruned["removed"]] == [study["key"]]
    assert pruned["kept"] == {other["key"]: "a job that has not ended uses it"}
    assert Path(study["folder"]).exists()
    assert run(project, "prune", "--unused-for", "0s").exit_code == 0
    assert not Path(study["folder"]).exists()
    assert Path(other["folder"]).exists()
    (job / "status").write_text("restart=0\nexit=0\n")
    old = time.time() - 2 * 86400
    stored = [path for path in (project / "work" / "store").glob("??/*") if path.is_file()]
    for path in stored:
        os.utime(path, (old, old))
    pruned = answer(project, "prune", "--unused-for", "0s")
    assert [row[0] for row in pruned["removed"]] == [other["key"]]
    assert pruned["freed"] > 0
    assert not any(path.exists() for path in stored)
    shutil.rmtree(job)
    assert [row["state"] for row in answer(project, "deploy")] == ["built", "built"]
