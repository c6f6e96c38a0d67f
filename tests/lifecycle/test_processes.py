"""Whatever happens to Dagster's processes, the job lives and is taken up again; only a termination cancels it."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from lifecycle.dev import PATIENCE, Dev, eventually

from dagster_slurm_components import cluster as slurm
from dagster_slurm_components.jobs.events import MESSAGES
from dagster_slurm_components.jobs.shown import FILE, parse_shown

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SUBMITS, RUNS, SPEAKS = "Submits the job", "runs on", "waiting at the gate"


def job_of(dev: Dev, run_id: str) -> str:
    """Return Slurm's id of a run's job."""
    found = re.search(r"Job (\d+) (?:submitted|taken up|known|adopted)", dev.said(run_id))
    assert found, dev.said(run_id)
    return found[1]


def jobs_named(cluster: slurm.Cluster, name: str) -> list[str]:
    """Return the jobs in accounting that carry a name; duplicates are rows of one requeued job."""
    rows = cluster.run(["sacct", "-X", "-n", "-P", "--duplicates", "-o", "JobID", "--name", name]).stdout
    return rows.split()


def kill(dev: Dev, run_id: str, target: str, number: int) -> None:
    """Send a signal to processes of a run: its worker, the step's own, or both."""
    known = eventually(lambda: (h := dev.history(run_id)).launches and h, "a launch")
    worker = known.launches[-1].supervisor.pid
    steps = list(known.workers.get("waits", frozenset()))
    pids = {"worker": [worker], "step": steps, "both": [worker, *steps]}[target]
    assert pids
    for pid in pids:
        os.kill(pid, number)


def noted(dev: Dev, run_id: str, moment: str) -> bool:
    """Whether it is written down that a person saw the payload speak: that takes up to two seconds."""
    if moment != SPEAKS:
        return True
    file = Path(dev.history(run_id).launches[-1].run_dir, FILE)
    return file.exists() and parse_shown(file.read_bytes()).offsets.get(MESSAGES, 0) > 0


@dataclass(frozen=True)
class Story:
    """What is done to a run's processes, and when."""

    target: str
    number: int
    moment: str
    in_process: bool = False


STORIES = {
    "kill-worker": Story("worker", signal.SIGKILL, SPEAKS),
    "kill-step": Story("step", signal.SIGKILL, RUNS),
    "kill-both-submitting": Story("both", signal.SIGKILL, SUBMITS),
    "kill-in-process": Story("worker", signal.SIGKILL, SPEAKS, in_process=True),
    "ctrl-c": Story("both", signal.SIGINT, SPEAKS),
    "sigterm": Story("both", signal.SIGTERM, RUNS),
}


@pytest.fixture(scope="module")
def struck(dev: Dev) -> dict[str, str]:
    """Runs whose processes were struck, all at once since each waits for Dagster's daemon; by story."""
    runs = {name: dev.launch("waits", in_process=story.in_process) for name, story in STORIES.items()}
    waiting = dict(runs)

    def strike() -> bool:
        for name, run_id in list(waiting.items()):
            if STORIES[name].moment in dev.said(run_id) and noted(dev, run_id, STORIES[name].moment):
                kill(dev, run_id, STORIES[name].target, STORIES[name].number)
                del waiting[name]
        return not waiting

    eventually(strike, "all runs come to their moment", 2 * PATIENCE)
    return runs


@pytest.mark.parametrize("name", STORIES)
def test_the_job_lives_and_the_retry_takes_it_up(
    dev: Dev, cluster: slurm.Cluster, struck: dict[str, str], name: str
) -> None:
    story, run_id = STORIES[name], struck[name]
    retry = dev.retry_of(run_id)
    dev.hears(retry, "taken up again" if story.moment != SUBMITS else RUNS)
    job_name = dev.history(retry).launches[-1].identity.job_name
    assert job_name == dev.history(run_id).launches[-1].identity.job_name
    dev.open_gate(run_id)
    dev.ends(retry, dg.DagsterRunStatus.SUCCESS)
    found = [(run, data) for run, data in dev.materializations("waits") if data["job_name"] == job_name]
    assert [run for run, _ in found] == [retry]
    assert found[0][1]["answer"] == 42
    assert found[0][1]["job/exit_code"] == 0
    assert eventually(lambda: jobs_named(cluster, job_name), "accounting") == [job_of(dev, retry)]
    if story.moment == SPEAKS:
        assert SPEAKS not in dev.said(retry)  # it was shown in the first run


def test_a_termination_cancels_the_job_and_nothing_else(dev: Dev, cluster: slurm.Cluster) -> None:
    other = dev.launch("waits")
    run_id = dev.launch("waits")
    for each in (other, run_id):
        dev.hears(each, SPEAKS)
    job = job_of(dev, run_id)
    dev.terminate(run_id)
    began = time.monotonic()
    eventually(
        lambda: "CANCELLED" in cluster.run(["squeue", "-h", "-t", "all", "-o", "%T", "-j", job]).stdout,
        "the job is cancelled",
    )
    assert time.monotonic() - began < 10
    dev.ends(run_id, dg.DagsterRunStatus.CANCELED)
    assert "RUNNING" in cluster.run(["squeue", "-h", "-o", "%T", "-j", job_of(dev, other)]).stdout
    dev.open_gate(other)
    dev.ends(other, dg.DagsterRunStatus.SUCCESS)


def test_a_job_that_ends_while_dagster_is_down_is_collected(dev: Dev, cluster: slurm.Cluster) -> None:
    run_id = dev.launch("waits")
    dev.hears(run_id, SPEAKS)
    job = job_of(dev, run_id)
    dev.stop(signal.SIGINT)
    assert "RUNNING" in cluster.run(["squeue", "-h", "-o", "%T", "-j", job]).stdout
    dev.open_gate(run_id)
    eventually(
        lambda: "COMPLETED" in cluster.run(["squeue", "-h", "-t", "all", "-o", "%T", "-j", job]).stdout,
        "the job ends",
    )
    dev.start()
    retry = dev.retry_of(run_id)
    dev.ends(retry, dg.DagsterRunStatus.SUCCESS)
    assert job_of(dev, retry) == job
    found = [run for run, data in dev.materializations("waits") if data["job/id"] == job]
    assert found == [retry]


def test_a_fresh_materialization_adopts_nothing(dev: Dev) -> None:
    first = dev.launch("waits")
    dev.hears(first, SPEAKS)
    second = dev.launch("waits")
    dev.hears(second, SPEAKS)
    assert job_of(dev, first) != job_of(dev, second)
    for run_id in (first, second):
        dev.open_gate(run_id)
        dev.ends(run_id, dg.DagsterRunStatus.SUCCESS)
