"""Environments on a real Slurm, through a real sshd: on demand, deployed, and spoilt."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from package_fixture import make_project as lock_project
from package_fixture import sys_executable
from project_fixture import Project, failure_text

from dagster_slurm_components.cli.main import main
from slurm_testcluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.ssh, pytest.mark.usefixtures("own_cache")]

PAYLOAD = """\
import importlib.metadata
from dagster_pipes import open_dagster_pipes

with open_dagster_pipes() as pipes:
    found = sorted(f"{each.name}=={each.version}" for each in importlib.metadata.distributions())
    pipes.report_asset_materialization(metadata={"packages": " ".join(found)})
"""


def packages(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.get_asset_materialization_events()
    return str(event.materialization.metadata["packages"].value)


def test_on_demand_then_deployed_then_spoilt(
    project: Project, cluster: Cluster, instance: dg.DagsterInstance, tmp_path: Path, index: Path
):
    study = lock_project(tmp_path / "study", index, "alpha==1.0", "beta")
    project.staging(cluster)
    text = (project.root / "profiles" / "staging.yaml").read_text()
    project.profile("production", text + "environment: {build: deployed}\n")
    project.write("report.py", PAYLOAD)
    project.scripts(f"""
        defaults: {{environment: {{type: uv, project: '{study}', python: '{sys_executable()}'}}}}
        scripts:
          - {{payload: report.py, assets: [{{key: report}}]}}
    """)
    # Staging makes what is missing.
    assert packages(project.run("staging", instance=instance)) == "alpha==1.0 beta==2.0"
    # Production takes it as it is there, and nothing newer.
    assert packages(project.run("production", instance=instance)) == "alpha==1.0 beta==2.0"
    lock_project(study, index, "alpha==1.1", "beta")
    runs = list((project.root / "cluster work" / "runs").iterdir())
    refused = failure_text(project.run("production", instance=instance))
    assert "different: alpha: has 1.0, wanted 1.1" in refused
    assert "dg-slurm env deploy --profile production" in refused
    assert list((project.root / "cluster work" / "runs").iterdir()) == runs
    deployed = CliRunner().invoke(
        main, ["--project", str(project.root), "env", "deploy", "--profile", "production"]
    )
    assert deployed.exit_code == 0, deployed.output
    assert packages(project.run("production", instance=instance)) == "alpha==1.1 beta==2.0"
    # What somebody installs by hand is named, and the payload does not start.
    for site_packages in (project.root / "cluster work" / "envs").glob("*/prefix/lib/python*/site-packages"):
        shutil.copytree(site_packages / "beta-2.0.dist-info", site_packages / "extra-9.dist-info")
    spoilt = project.run("production", instance=instance)
    assert "not wanted: extra 9" in failure_text(spoilt)
    assert spoilt.get_asset_materialization_events() == []


def test_eight_jobs_at_once_with_a_new_environment(
    project: Project, cluster: Cluster, tmp_path: Path, index: Path
):
    """Each step is a process of its own and finds no environment; one of them makes it, all jobs succeed."""
    study = lock_project(tmp_path / "study", index, "alpha==1.0", "beta")
    project.staging(cluster)
    project.write("report.py", PAYLOAD)
    scripts = "\n".join(
        f"          - {{payload: report.py, name: job_{number}, assets: [{{key: job_{number}}}]}}"
        for number in range(8)
    )
    project.scripts(f"""
        defaults: {{environment: {{type: uv, project: '{study}', python: '{sys_executable()}'}}}}
        scripts:\n{scripts}
    """)
    config = '{"execution": {"config": {"multiprocess": {"max_concurrent": 8}}}}'
    project.dg("launch", "--assets", "*", "--config-json", config, profile="staging")
    with dg.DagsterInstance.from_config(str(project.root / "dagster home")) as instance:
        (run,) = instance.get_runs()
        said = [entry.user_message for entry in instance.all_logs(run.run_id)]
        made = instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        ).records
    found = [event.metadata["packages"].value for r in made if (event := r.asset_materialization)]
    assert found == ["alpha==1.0 beta==2.0"] * 8
    senders = [text for text in said if "is ready after" in text and " 0.0 MB sent" not in text]
    assert len(senders) == 1, said
    assert len(list((project.root / "cluster work" / "envs").glob("*/.ready"))) == 1
