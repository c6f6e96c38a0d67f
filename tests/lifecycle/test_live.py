"""What is seen of a job on a real Slurm while it runs: on all its nodes, against its time limit, and where it hangs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from project_fixture import Project, failure_text
from waiting import eventually

import slurm_testcluster as slurm
from dagster_slurm_components.jobs import live, meter

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def top(project: Project) -> Any:
    command = [
        sys.executable,
        "-m",
        "dagster_slurm_components.cli.main",
        "top",
        "--profile",
        "staging",
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


def test_each_node_is_seen_and_that_the_time_limit_comes_first(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "FIRST", 2.0)
    monkeypatch.setattr(meter, "FIRST", 2.0)
    monkeypatch.setattr(live, "_PAUSES", (0.0,))
    project.staging(cluster)
    stop = project.root / "stop"
    project.write(
        "works.sh",
        f"""\
        . pipes.sh
        at=0
        until [ -e '{stop}' ]; do
            if [ "$SLURM_PROCID" = 0 ]; then pipes_log "$((at = at < 90 ? at + 1 : at)) % ($at of 10000)"; fi
            sleep 6
        done
        """,
    )
    project.scripts("""
        scripts:
          - payload: works.sh
            assets: [{key: works}]
            launcher: {type: srun}
            resources: {nodes: 2, time: "00:05:00"}
        """)
    results: list[dg.ExecuteInProcessResult] = []
    run = threading.Thread(target=lambda: results.append(project.run("staging", instance=instance)))
    run.start()
    try:
        rows = eventually(
            lambda: [row for row in top(project) if len(row["nodes"]) == 2 and row["cpu"]], "both nodes"
        )
        told = eventually(lambda: said(instance, "won't be done in time"), "a warning that it won't be done")
        line = r"^Job \d+: on 2 nodes: memory .*% done"
        eventually(lambda: said(instance, line), "a line about both nodes")
    finally:
        stop.touch()
        run.join()
    assert (rows[0]["state"], rows[0]["time_limit_s"]) == ("RUNNING", 300)
    assert len({node["node"] for node in rows[0]["nodes"]}) == 2
    assert re.search(r"\d+ % done, about \d+ min more; the time limit ends it in ", told)
    assert results[0].success


def said(instance: dg.DagsterInstance, pattern: str) -> str:
    """Return the first message of a pattern."""
    entries = [entry for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]
    return next((entry.user_message for entry in entries if re.search(pattern, entry.user_message)), "")


def test_a_job_that_hangs_is_cancelled_and_one_that_waits_is_shown_with_why(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance
) -> None:
    project.staging(cluster)
    project.write("hang.sh", "sleep 3600\n")
    project.scripts("""
        scripts:
          - payload: hang.sh
            assets: [{key: hangs}]
            resources: {time: "01:00:00", begin: now+10minutes}
            idle: {warn: 8s, action: cancel}
        """)
    results: list[dg.ExecuteInProcessResult] = []
    run = threading.Thread(target=lambda: results.append(project.run("staging", instance=instance)))
    run.start()
    try:
        (row,) = eventually(
            lambda: [row for row in top(project) if row["reason"] == "BeginTime"], "a job that waits"
        )
        cluster.run(["scontrol", "update", f"JobId={row['job_id']}", "StartTime=now"])
    finally:
        run.join()
    assert (row["state"], row["reason"], row["nodes"]) == ("PENDING", "BeginTime", [])
    assert row["expected_start"]
    text = failure_text(results[0])
    assert "It was cancelled: `idle.action: cancel` is written at" in text
    state = ["sacct", "-X", "-n", "-P", "-o", "State", "-j", row["job_id"]]
    eventually(lambda: cluster.run(state).stdout.startswith("CANCELLED"), "the accounting tells so, too")
