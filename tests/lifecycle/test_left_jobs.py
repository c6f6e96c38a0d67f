"""Jobs that a failed run left behind, where no retry was promised: the sensor tells of each once, and does nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread

import dagster as dg
import pytest
from project_fixture import Project
from waiting import eventually

import slurm_testcluster as slurm
from dagster_slurm_components import slurm_jobs_sensor
from dagster_slurm_components.jobs.lease import parse_ledger
from dagster_slurm_components.pipes import guard, orphans

Left = Callable[[str], tuple[str, str]]
"""Submits an asset's job and has its run fail without it; returns the run and the job."""


@pytest.fixture(
    params=["local", pytest.param("staging", marks=[pytest.mark.slurm, pytest.mark.slow])],
)
def profile(request: pytest.FixtureRequest, project: Project) -> str:
    if request.param == "staging":
        cluster: slurm.Cluster = request.getfixturevalue("cluster")
        project.staging(cluster)
    return str(request.param)


@pytest.fixture
def left(
    project: Project, instance: dg.DagsterInstance, profile: str, monkeypatch: pytest.MonkeyPatch
) -> Left:
    monkeypatch.setattr(guard, "_LOOK_EVERY", 0.2)
    # The process that followed the jobs is the test's own, and lives.
    monkeypatch.setattr(orphans, "_SILENCE", 0.0)
    project.write("gate.sh", 'while [ ! -e "$GATE" ]; do sleep 0.1; done\nexit "$CODE"\n')
    project.scripts(
        f"""
        scripts:
          - {{payload: gate.sh, env: {{GATE: "{project.root}/open", CODE: "0"}}, assets: [{{key: works}}]}}
          - {{payload: gate.sh, env: {{GATE: "{project.root}/open", CODE: "1"}}, assets: [{{key: fails}}]}}
          - {{payload: gate.sh, env: {{GATE: "{project.root}/shut", CODE: "0"}}, assets: [{{key: goes_on}}]}}
        """
    )

    def leave(asset: str) -> tuple[str, str]:
        found: list[tuple[str, str]] = []

        def fail() -> None:
            job = eventually(lambda: _submitted(project.root, asset), "a ledger")
            (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
            instance.report_run_failed(run, "Nobody follows this run's job.")
            found.append((run.run_id, job))

        failing = Thread(target=fail)
        failing.start()
        project.run(profile, instance=instance, select=[asset])
        failing.join()
        return found[0]

    return leave


def _submitted(root: Path, step: str) -> str | None:
    for ledger in root.rglob(f"{step}/0/ledger"):
        return parse_ledger(ledger.read_bytes()).job_id
    return None


def test_each_is_told_of_once(
    project: Project,
    instance: dg.DagsterInstance,
    profile: str,
    left: Left,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes: list[str] = []
    watch_jobs = slurm_jobs_sensor(project=project.root, notify=notes.append)

    def tick(cursor: str | None) -> tuple[str, str | None]:
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        said = watch_jobs(context)
        assert isinstance(said, dg.SkipReason)
        return str(said.skip_message), context.cursor

    (works, works_job), (fails, _), (goes_on, going_job) = (
        left(each) for each in ("works", "fails", "goes_on")
    )
    (project.root / "open").touch()
    ended = [next(project.root.rglob(f"{step}/0")) for step in ("works", "fails")]
    eventually(lambda: all("exit=" in (run / "status").read_text() for run in ended), "two jobs end")
    try:
        quiet, cursor = tick(None)
        assert (
            quiet == "All runs that follow a job are alive, for all that is known here."
        )  # the daemon's minute
        monkeypatch.setattr(orphans, "_DAEMON", -60.0)
        told, cursor = tick(cursor)
        assert f"Job {works_job} on " in told
        assert f"`dg-slurm attach {works}`, or the next `dg launch` of the same, does." in told
        assert f"Job {going_job} on " in told
        assert f"`dg-slurm jobs cancel {going_job} --profile {profile}` ends it." in told
        assert fails not in told, "there is nothing left of it to want"
        assert sorted(notes) == sorted(f"Run {line}" for line in told.splitlines())
        assert tick(cursor)[0] == quiet
        said = "\n".join(entry.message for entry in instance.all_logs(goes_on))
        assert "no run follows it" in said
    finally:
        (project.root / "shut").touch()
        last = next(project.root.rglob("goes_on/0"))
        eventually(lambda: "exit=" in (last / "status").read_text(), "the last job ends")
