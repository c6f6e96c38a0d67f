"""`dg-slurm jobs` and `dg-slurm clean`, on jobs that are plain processes of this machine, and on a real Slurm."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from project_fixture import Project
from waiting import PATIENCE, eventually

import slurm_testcluster as slurm
from dagster_slurm_components.cli.main import main
from dagster_slurm_components.hosts.satellite.processes import identify
from dagster_slurm_components.jobs.lease import parse_ledger
from dagster_slurm_components.pipes import guard

DAY = 86400.0


def call(*args: str, status: int = 0) -> Result:
    done = CliRunner().invoke(main, list(args))
    assert done.exit_code == status, done.output + str(done.exception)
    return done


def listed(*args: str) -> Any:
    return json.loads(call(*args, "--json").stdout)


@pytest.fixture
def two_jobs(project: Project, instance: dg.DagsterInstance) -> str:
    """A job that did its work and one that did not; returns their run."""
    project.write("works.sh", "echo 'ünï on stdout'; echo on stderr >&2\n")
    project.scripts(
        """
        scripts:
          - payload: works.sh
            assets: [{key: works}]
          - command: ["false"]
            assets: [{key: fails}]
        """
    )
    return project.run("local", instance=instance).run_id


def test_jobs_are_listed_shown_and_read(two_jobs: str) -> None:
    assert listed("jobs", "list") == []
    jobs = {job["step"]: job for job in listed("jobs", "list", "--all")}
    assert {step: (job["state"], job["exit_code"], job["collected"]) for step, job in jobs.items()} == {
        "works": ("COMPLETED", 0, True),
        "fails": ("FAILED", 1, False),
    }
    works = jobs["works"]
    assert works["run_id"] == two_jobs
    shown = listed("jobs", "show", works["job_id"])
    assert [each["event"].split(" on ")[0] for each in shown["timeline"]] == [
        "submitted",
        "start 1",
        "payload began",
        "ended with exit code 0",
    ]
    assert shown["files"]["stdout.log"] > 0
    assert "start 1 on" in call("jobs", "show", works["run_directory"]).output
    assert call("jobs", "logs", works["job_id"]).stdout == "ünï on stdout\n"
    assert call("jobs", "logs", "--stderr", works["job_id"]).stdout == "on stderr\n"


def test_a_name_that_fits_none_or_several_is_refused(two_jobs: str) -> None:
    assert "several jobs" in call("jobs", "show", two_jobs, status=1).output
    assert "no job '4711-no-such'" in call("jobs", "show", "4711-no-such", status=1).output
    assert "has ended already" in call(
        "jobs", "cancel", listed("jobs", "list", "--all")[0]["job_id"], status=1
    ).output.replace("\n", " ")


def test_clean_removes_what_is_over_and_old_enough(two_jobs: str, project: Project) -> None:
    runs = project.root / ".dagster-slurm" / "runs"
    young = listed("clean", "--dry-run")["run_directories"]
    assert [each["remove"] for each in young] == [False, False]
    _age(runs, 2 * DAY)
    going = {Path(each["run_directory"]).parent.name: each["remove"] for each in _judged()}
    assert going == {"works": True, "fails": False}
    assert (runs / two_jobs / "works" / "0").exists()
    call("clean")
    assert list((runs / two_jobs / "works").iterdir()) == []
    assert (runs / two_jobs / "fails" / "0").exists()
    _age(runs, 15 * DAY)
    call("clean")
    assert not list(runs.rglob("ledger"))
    for _ in range(2):
        _age(runs, DAY)  # empty folders go an hour later, the inner ones first
        call("clean")
    assert not (runs / two_jobs).exists()


def _judged() -> Any:
    return listed("clean", "--dry-run")["run_directories"]


def _age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(FileNotFoundError):  # a job that begins makes and removes some
            os.utime(path, (then, then))


def test_a_running_job_is_neither_cleaned_nor_hidden_and_can_be_cancelled(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.scripts("scripts:\n  - command: [sleep, '600']\n    assets: [{key: sleeps}]\n")
    results: list[dg.ExecuteInProcessResult] = []
    run = Thread(target=lambda: results.append(project.run("local", instance=instance)))
    run.start()
    try:
        (job,) = eventually(lambda: listed("jobs", "list"), "the job is listed")
        eventually(lambda: listed("jobs", "show", job["job_id"])["timeline"][2:], "the payload began")
        _age(project.root / ".dagster-slurm" / "runs", 400 * DAY)
        assert [each["remove"] for each in _judged()] == [False]
    finally:
        for each in listed("jobs", "list"):
            call("jobs", "cancel", each["job_id"])
        run.join(PATIENCE)
    pid, _, start = job["job_id"].partition(":")
    eventually(lambda: identify([int(pid)]).get(int(pid)) != start, "the job's process ends")
    assert not results[0].success


@pytest.mark.slurm
@pytest.mark.slow
def test_the_same_against_slurm_over_ssh(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`logs -f` ends with the job; `clean` leaves what waits or runs."""
    project.staging(cluster)
    gate, runs = project.root / "gate", project.root / "cluster work" / "runs"
    project.write("gate.sh", 'echo begun\nwhile [ ! -e "$GATE" ]; do sleep 0.1; done\necho ended\n')
    project.scripts(
        f"""
        scripts:
          - {{payload: gate.sh, env: {{GATE: "{gate}"}}, assets: [{{key: works}}]}}
          - {{command: [sleep, "600"], resources: {{begin: now+1hour}}, assets: [{{key: waits}}]}}
        """
    )
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", "staging")
    monkeypatch.setattr(guard, "_LOOK_EVERY", 0.2)
    works, waits = (_left(project, instance, asset) for asset in ("works", "waits"))
    assert {job["job_id"] for job in listed("jobs", "list")} == {works, waits}
    eventually(lambda: call("jobs", "logs", works).stdout == "begun\n", "the payload speaks")
    shown = listed("jobs", "show", works)
    assert (shown["state"], shown["step"], shown["collected"]) == ("RUNNING", "works", False)
    why = ("PENDING", "BeginTime")
    shown = lambda: listed("jobs", "show", waits)  # noqa: E731
    eventually(lambda: (shown()["state"], shown()["reason"]) == why, "the reason is known")
    assert "earliest start time" in call("jobs", "show", waits).output.replace("\n", " ")
    _age(runs, 400 * DAY)
    assert [each["remove"] for each in _judged()] == [False, False]

    call("jobs", "cancel", waits)
    eventually(lambda: listed("jobs", "show", waits)["state"] == "CANCELLED", "it is cancelled")
    assert [job["job_id"] for job in listed("jobs", "list")] == [works]
    opener = Thread(target=_open_later, args=[gate])
    opener.start()
    assert call("jobs", "logs", "-f", works).stdout == "begun\nended\n"
    opener.join()
    states = {each["step"]: (each["state"], each["exit_code"]) for each in listed("jobs", "list", "--all")}
    assert states == {"works": ("COMPLETED", 0), "waits": ("CANCELLED", None)}
    _age(runs, 15 * DAY)
    call("clean")
    assert not list(runs.rglob("ledger"))


def _left(project: Project, instance: dg.DagsterInstance, asset: str) -> str:
    """Submit an asset's job, and have its step leave it; return the job's id."""
    found: list[str] = []

    def leave() -> None:
        ledger = project.root / "cluster work" / "runs"
        found.append(eventually(lambda: _submitted(ledger, asset), "a ledger"))
        (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        instance.report_run_failed(run, "Nobody follows this run's job.")

    leaver = Thread(target=leave)
    leaver.start()
    project.run("staging", instance=instance, select=[asset])
    leaver.join()
    return found[0]


def _submitted(runs: Path, step: str) -> str | None:
    for ledger in runs.glob(f"*/{step}/0/ledger"):
        return parse_ledger(ledger.read_bytes()).job_id
    return None


def _open_later(gate: Path) -> None:
    """Open the gate when somebody follows the log: later than a first look at it takes."""
    time.sleep(2.0)
    gate.touch()
