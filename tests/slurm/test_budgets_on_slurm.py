"""Accounts with budgets on a real Slurm: what doctor and render say, and the log of a step that can't pay."""

from __future__ import annotations

import json
import threading

import dagster as dg
import pytest
from click.testing import CliRunner
from project_fixture import Project, failure_text
from reports_fixture import log, warnings
from waiting import eventually

import slurm_testcluster as slurm
from dagster_slurm_components.cli.main import main

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SCRIPTS = """
scripts:
  - payload: a.sh
    resources: {account: ACCOUNT, cpus_per_task: 2, time: "00:05:00"}
    assets: [{key: a}]
"""


def sacctmgr(lab: slurm.Cluster, *words: str) -> None:
    lab.run(["sacctmgr", "--immediate", *words])


@pytest.fixture(scope="module")
def accounts(lab: slurm.Cluster) -> slurm.Cluster:
    """A cluster with two accounts that have used up their budgets, and one whose parent has little."""
    user = lab.run(["id", "-un"]).stdout.strip()
    sacctmgr(lab, "add", "account", "poor,later", "cluster=lab", "set", "GrpTRESMins=cpu=0")
    sacctmgr(lab, "add", "account", "top", "cluster=lab", "set", "GrpTRESMins=cpu=600,node=6000")
    sacctmgr(lab, "add", "account", "rich", "cluster=lab", "parent=top", "set", "GrpTRESMins=cpu=60000")
    sacctmgr(lab, "add", "user", user, "account=poor,later,rich", "cluster=lab")
    return lab


@pytest.fixture
def ready(project: Project, accounts: slurm.Cluster) -> Project:
    project.staging(accounts)
    project.write("a.sh", "true\n")
    project.scripts(SCRIPTS.replace("ACCOUNT", "poor"))
    return project


def findings(project: Project, account: str) -> dict[str, list[str]]:
    """Return what doctor says of the budgets of an account, by verdict."""
    profile = project.root / "profiles" / "staging.yaml"
    profile.write_text(profile.read_text().replace("  partition: debug\n", f"  account: {account}\n"))
    done = CliRunner().invoke(main, ["doctor", "staging", "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, list[str]] = {}
    for each in json.loads(done.stdout)["findings"]:
        if each["check"] == "budget":
            found.setdefault(each["verdict"], []).append(each["detail"])
    return found


@pytest.mark.parametrize(
    ("account", "told"),
    [
        ("lab", {}),
        ("poor", {"warning": ["0 of 0 core-hours are left to account `poor`"]}),
        (
            "rich",
            {
                "ok": [
                    "10 of 10 core-hours are left to account `top`",
                    "100 of 100 node-hours are left to account `top`",
                ]
            },
        ),
    ],
)
def test_doctor_tells_what_is_left(ready: Project, account: str, told: dict[str, list[str]]) -> None:
    assert findings(ready, account) == told


def test_render_warns_where_it_asks_the_cluster_anyway(ready: Project) -> None:
    done = CliRunner().invoke(main, ["render", "a", "--profile", "staging", "--test-only"])
    assert done.exit_code == 0, done.output
    assert "sbatch --test-only: accepted" in done.output
    assert "The budget may not pay for this job: 0 of 0 core-hours are left to account `poor`" in done.output
    assert "budget" not in CliRunner().invoke(main, ["render", "a", "--profile", "staging"]).output


def test_a_job_that_can_not_be_paid_waits_and_the_log_says_why(
    ready: Project, accounts: slurm.Cluster, instance: dg.DagsterInstance
) -> None:
    ready.scripts(SCRIPTS.replace("ACCOUNT", "later"))
    results: list[dg.ExecuteInProcessResult] = []
    run = threading.Thread(target=lambda: results.append(ready.run("staging", instance=instance)))
    run.start()

    def waiting() -> list[str]:
        logs = [each.user_message for run in instance.get_runs() for each in instance.all_logs(run.run_id)]
        return [text for text in logs if "AssocGrpCPUMinutesLimit" in text]

    (told,) = eventually(waiting, "the log says what the job waits for")
    assert "The budget of the account is used up" in told
    assert told.endswith("0 of 0 core-hours are left to account `later`.")
    sacctmgr(accounts, "modify", "account", "later", "set", "GrpTRESMins=cpu=6000")
    run.join()
    (result,) = results
    assert result.success, failure_text(result)
    said = log(instance, result)
    (warned,) = [text for text in warnings(instance, result) if "budget" in text]
    assert said.index(warned) < said.index("submitted on"), "before it was submitted"
    assert "0 of 0 core-hours are left to account `later`, and it asks for 0.167." in warned
    assert "`account: later` is written at" in warned
    assert "defs.yaml:6:" in warned
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["job/budget_left_core_hours"].value == 0.0
