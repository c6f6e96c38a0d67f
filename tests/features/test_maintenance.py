"""The schedule that removes what is over: on a real Slurm, and where a host can't be asked."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from package_fixture import index, own_cache, sys_executable  # noqa: F401 - fixtures
from package_fixture import make_project as lock_project
from ports import free_port
from project_fixture import Project, failure_text
from waiting import PATIENCE

from dagster_slurm_components import slurm_maintenance
from dagster_slurm_components.jobs.lease import parse_ledger
from slurm_testcluster import Cluster

LONG_AGO = 60 * 86400.0


def age(folder: Path) -> None:
    then = time.time() - LONG_AGO
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a job that begins makes and removes some
            os.utime(path, (then, then), follow_symlinks=False)


def maintain(project: Project, instance: dg.DagsterInstance, *profiles: str) -> dg.ExecuteInProcessResult:
    schedule = slurm_maintenance(project=project.defs, profiles=profiles)
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    job = schedule.job
    assert isinstance(job, dg.JobDefinition)
    return job.execute_in_process(instance=instance, raise_on_error=False)


def told(result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> tuple[list[Any], str]:
    """Return the rows of the metadata, of a failure too, and the log."""
    rows: list[Any] = []
    for event in result.all_events:
        data = event.event_specific_data
        metadata = getattr(getattr(data, "user_failure_data", None) or data, "metadata", None) or {}
        if "maintenance" in metadata:
            rows = [record.data for record in metadata["maintenance"].records]
    log = "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))
    return rows, log


@pytest.mark.slurm
@pytest.mark.ssh
@pytest.mark.usefixtures("own_cache")
def test_what_is_over_goes_and_what_lives_stays(
    project: Project,
    cluster: Cluster,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    index: Path,  # noqa: F811
    own_cache: Path,  # noqa: F811
) -> None:
    study = lock_project(tmp_path / "study", index, "alpha==1.0")
    other = lock_project(tmp_path / "other", index, "gamma", name="other")
    project.staging(cluster)
    uv = f"environment: {{type: uv, python: '{sys_executable()}', project: '%s'}}"
    live = f"- {{command: [sleep, '300'], leave: true, assets: [{{key: live}}], {uv % study}}}\n"
    over = f"- {{command: ['true'], assets: [{{key: over}}], {uv % other}}}\n"
    project.scripts(f"scripts:\n  {live}  {over}")
    assert project.run("staging", instance=instance).success
    work = project.root / "cluster work"
    (left,) = work.glob("runs/**/live/**/ledger")
    (gone,) = work.glob("runs/**/over/**/ledger")
    age(work)
    age(own_cache)
    # No script needs these environments any more; the job of one goes on.
    lock_project(study, index, "alpha==1.1")
    project.scripts(f"scripts:\n  {live}")
    result = maintain(project, instance, "staging")
    try:
        rows, log = told(result, instance)
        assert result.success, log
        assert left.exists()
        assert not gone.exists()
        assert len([path for path in (work / "envs").glob("[!.]*") if path.is_dir()]) == 1
        assert "kept 1: a job that has not ended uses it" in log
        (row,) = rows
        assert row["profile"] == "staging"
        assert "@127.0.0.1:" in row["host"]
        names = "run directories removed", "run directories kept", "environments removed", "environments kept"
        assert [row[name] for name in names] == [1, 1, 1, 1]
        assert row["MB freed"] > 0
        assert f"{gone.parent}: its results are in Dagster" in log
        assert "kept 1: its job is " in log
        assert "other (" in log
        assert not [*own_cache.glob("files/*/gamma*"), *own_cache.glob("files/*/*-gamma*")]
    finally:
        cluster.run(["scancel", str(parse_ledger(left.read_bytes()).job_id)])


def test_a_host_that_asks_a_person_is_left_alone_and_one_that_is_away_is_named(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.write("hello.sh", "echo hello\n")
    project.scripts("scripts: [{payload: hello.sh, assets: [{key: hello}]}]")
    assert project.run("local", instance=instance).success
    age(project.root / ".dagster-slurm")
    port = free_port()
    for name, login in {"asks": "[key, otp]", "away": "[key]"}.items():
        host = f"{{type: ssh, hostname: 127.0.0.1, port: {port}, login: {login}, connect_timeout: 5}}"
        project.profile(name, f"host: {host}\nscheduler: slurm\nworkdir: /tmp/nowhere\n")
    began = time.monotonic()
    result = maintain(project, instance, "asks", "away", "local")
    assert time.monotonic() - began < PATIENCE
    rows, _ = told(result, instance)
    asks, away, local = rows
    assert not asks["failed"]
    assert "left alone" in asks["note"]
    assert "dg-slurm login asks" in asks["note"]
    assert away["failed"]
    assert f"127.0.0.1:{port}" in away["note"]
    assert (local["run directories removed"], local["failed"]) == (1, False)
    assert not [*project.root.glob(".dagster-slurm/runs/**/ledger")]
    assert not result.success
    text = failure_text(result)
    assert "1 of 3 profiles could not be looked after" in text
    assert f"127.0.0.1:{port}" in text
