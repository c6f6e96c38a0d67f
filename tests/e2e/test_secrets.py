"""Nothing secret in argument lists, in Slurm's records, in scripts or in Dagster's stored definitions."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value
from project_fixture import Project

import slurm_testcluster as slurm

SECRET = "correct-horse-battery-staple-4711"


def watch_arguments(stop: threading.Event, seen: set[str]) -> None:
    """Collect the argument list of every process of this machine for as long as the job runs."""
    while not stop.is_set():
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    seen.add((entry / "cmdline").read_bytes().decode("utf-8", "replace"))
                except OSError:
                    continue
        time.sleep(0.05)


@pytest.mark.slurm
def test_f48_a_secret_reaches_the_payload_and_nobody_else(
    project: Project,
    cluster: slurm.Cluster,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MY_TOKEN", SECRET)
    project.staging(cluster)
    project.write(
        "uses.py",
        """
        import os, subprocess, hashlib, time
        from dagster_pipes import open_dagster_pipes

        with open_dagster_pipes() as pipes:
            time.sleep(3)  # long enough to be seen among the processes
            shown = subprocess.run(["scontrol", "show", "job", os.environ["SLURM_JOB_ID"]], capture_output=True)
            digest = hashlib.sha256(os.environ["TOKEN"].encode()).hexdigest()
            pipes.report_asset_materialization(metadata={"shown": shown.stdout.decode(), "digest": digest})
        """,
    )
    project.scripts(
        """
        scripts:
          - payload: uses.py
            env: {TOKEN: "{{ env('MY_TOKEN') }}"}
            assets: [{key: guarded}]
        """
    )
    stop, seen = threading.Event(), set[str]()
    watcher = threading.Thread(target=watch_arguments, args=(stop, seen))
    watcher.start()
    try:
        result = project.run("staging", instance=instance)
    finally:
        stop.set()
        watcher.join()
    assert result.success
    metadata = result.get_asset_materialization_events()[0].materialization.metadata
    job_id = str(metadata["job/id"].value)
    assert f"JobId={job_id}" in str(metadata["shown"].value)
    assert any("uses.py" in arguments for arguments in seen)
    assert not any(SECRET in arguments for arguments in seen)
    assert SECRET not in str(metadata["shown"].value)
    stored = cluster.run(["sacct", "--jobs", job_id, "--batch-script", "--env-vars"], check=False).stdout
    assert SECRET not in stored
    folder = Path(str(metadata["job/run_directory"].value))
    holders = [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and SECRET in path.read_text(errors="replace")
    ]
    assert holders == []  # job.env went with the lease
    out, err = capfd.readouterr()
    assert SECRET not in out + err
    assert not any(SECRET in record.to_json() for record in instance.all_logs(result.run_id))


def test_f48_stored_definitions_hold_no_secret(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", SECRET)
    project.scripts(
        """
        scripts:
          - command: ["true"]
            env: {TOKEN: "{{ env('MY_TOKEN') }}"}
            assets: [{key: guarded}]
        """
    )
    with project.definitions() as definitions:
        snapshot = RepositorySnap.from_def(definitions.get_repository_def())
        assert "guarded" in serialize_value(snapshot)
        assert SECRET not in serialize_value(snapshot)
