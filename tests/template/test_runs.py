"""Projects made from the template run on a real Slurm, and in production after a deployment."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from template_fixture import answers, render, run

import slurm_testcluster as slurm

DG_SLURM = ("python", "-m", "dagster_slurm_components.cli.main")


def launch(project: Path, profile: str, **env: str) -> str:
    """Materialize all assets as a user does; return what `dg launch` said."""
    done = run(project, "dg", "launch", "--assets", "*", DAGSTER_SLURM_PROFILE=profile, **env)
    said = done.stdout + done.stderr
    assert "RUN_SUCCESS" in said, said
    for asset in ("first", "summary"):
        assert f"Materialized value {asset}." in said, said
    return said


def test_python_assets_in_several_files_share_one_resource(tmp_path: Path) -> None:
    """Dagster refuses two files that each bind `compute`, even to equal values (1.13): the project binds it once."""
    project = render(tmp_path / "p")
    defs = project / "src" / answers(project)["package_name"] / "defs"
    text = (defs / "summary" / "definitions.py").read_text()
    (defs / "second.py").write_text(text.replace("def summary", "def second"))
    (defs / "third.py").write_text(
        text.replace("def summary", "def third") + "\n\ndefs = dg.Definitions(assets=[third])\n"
    )
    assert run(project, "dg", "check", "defs").returncode == 0
    listed = json.loads(run(project, "dg", "list", "defs", "--json").stdout)
    assert {asset["asset_key"] for asset in listed["assets"]} == {"first", "summary", "second", "third"}


@pytest.mark.slurm
@pytest.mark.slow
def test_staging_on_a_real_slurm(cluster: slurm.Cluster, tmp_path: Path) -> None:
    """No file is edited by hand: the profile finds the test cluster of this machine."""
    project = render(tmp_path / "p", project_name=f"staging-{os.getpid()}")
    env = {"DAGSTER_SLURM_CLUSTER": str(cluster.folder), "DAGSTER_SLURM_AGENT": "off"}
    doctor = run(project, *DG_SLURM, "doctor", "--profile", "staging", "--json", **env)
    assert json.loads(doctor.stdout)["ok"] is True
    said = launch(project, "staging", **env)
    assert "(profile staging)" in said
    assert (cluster.work / f"staging-{os.getpid()}" / "data" / "first.json").is_file()


@pytest.mark.slurm
@pytest.mark.slow
def test_production_after_a_deployment(cluster: slurm.Cluster, tmp_path: Path) -> None:
    """`dg-slurm env deploy`, then a run; no file is edited by hand, answers and ~/.ssh are enough."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    shutil.copy(cluster.key_file, home / ".ssh" / "id_ed25519")
    shutil.copy(cluster.known_hosts_file, home / ".ssh" / "known_hosts")
    project = render(
        tmp_path / "p",
        production_hostname=f"127.0.0.1:{cluster.ssh_port}",
        production_user=cluster.user,
        production_partition="debug",
        production_folder=str(tmp_path / "scratch"),
    )
    env = {"HOME": str(home), "DAGSTER_SLURM_AGENT": "off"}
    failed = run(
        project, "dg", "launch", "--assets", "first", check=False, DAGSTER_SLURM_PROFILE="production", **env
    )
    assert failed.returncode != 0
    assert "dg-slurm env deploy --profile production" in failed.stdout + failed.stderr
    run(project, *DG_SLURM, "env", "deploy", "--profile", "production", **env)
    assert "(profile production)" in launch(project, "production", **env)
    assert (tmp_path / "scratch" / "data" / "first.json").is_file()
