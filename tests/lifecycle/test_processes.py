"""Whatever happens to Dagster's processes, the job lives and is taken up again; only a termination cancels it.

Each signal and each kind of process once; `test_all_moments.py` has them at each of ten moments.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
import pytest
from lifecycle.dev import Dev, Launch
from lifecycle.stories import PARTS, SPEAKS, Ears, Player, Story, check, jobs_named, play
from waiting import eventually

import slurm_testcluster as slurm
from dagster_slurm_components.jobs.lease import LEDGER, parse_ledger

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

STORIES = [
    Story("worker", signal.SIGINT, "submitted"),
    Story("worker", signal.SIGTERM, "running"),
    Story("worker", signal.SIGKILL, "speaking"),
    Story("step", signal.SIGINT, "pending"),
    Story("step", signal.SIGTERM, "ended"),
    Story("step", signal.SIGKILL, "started"),
    Story("group", signal.SIGINT, "running"),
    Story("group", signal.SIGTERM, "reported", in_process=True),
    Story("group", signal.SIGKILL, "announced"),
]


def test_jobs_live_and_retries_take_them_up(dev: Dev, cluster: slurm.Cluster) -> None:
    chains = play(dev, cluster, STORIES, also=["plain"])
    check(dev, cluster, chains)
    # A sibling that had ended well is not run again by the retry.
    assert [run for run, _ in dev.materializations("plain")] == [chains[-1].runs[0]]


def test_attach_takes_a_job_up_by_hand(dev: Dev, cluster: slurm.Cluster) -> None:
    """As typed in a terminal: refused while somebody follows the job, and when there is nothing left to take up."""
    story = Story("group", signal.SIGKILL, "running")
    (run,) = dev.launch_all([["running"]], in_process=[False], tags=[{"dagster/max_retries": "0"}])
    player = Player(dev, cluster, story)
    with dev.instance() as instance:
        ears = Ears(dev, instance)
        eventually(lambda: player.seen(ears(run)), "the payload speaks")
        heard = ears(run)
    refused = dev.dg_slurm("attach", run)
    assert refused.returncode == 1
    assert f"run {run} is STARTED, and its process is not known to be dead" in refused.stderr
    player.strike(heard)
    (launch,) = heard.launches

    dev.open(launch)

    def attached() -> str | None:
        done = dev.dg_slurm("attach", run, "--json")
        return str(json.loads(done.stdout)["run_id"]) if done.returncode == 0 else None

    retry = eventually(attached, "the run worker is gone")
    dev.hears(retry, "taken up again")
    dev.ends(retry, dg.DagsterRunStatus.SUCCESS)
    assert dict(dev.materializations("running"))[retry]["job/id"] == job_of(launch)
    assert f"run {retry} has succeeded" in dev.dg_slurm("attach", retry).stderr


NIGHT = {
    "ends": Story("group", signal.SIGKILL, "night_ends"),
    "requeues": Story("group", signal.SIGKILL, "night_requeues"),
    **{
        part: Story("group", signal.SIGKILL, "night_parts", in_process=True, partition=part) for part in PARTS
    },
}
"""What becomes of a job while Dagster is down; two are partitions of one asset that go on."""


def test_a_termination_cancels_one_job_and_what_happens_while_dagster_is_down_is_found(
    dev: Dev, cluster: slurm.Cluster, record_property: Callable[[str, object], None]
) -> None:
    """All processes of Dagster are killed at once; the sensor of the next `dg dev` finds the runs."""
    stories = {"terminated": Story("group", signal.SIGKILL, "running"), **NIGHT}
    runs = dict(zip(stories, launched(dev, list(stories.values())), strict=True))
    players = {name: Player(dev, cluster, story) for name, story in stories.items()}
    with dev.instance() as instance:
        ears = Ears(dev, instance)
        eventually(lambda: all(p.seen(ears(runs[name])) for name, p in players.items()), "all payloads speak")
        heard = {name: ears(runs[name]) for name in stories}
    launches = {name: heard[name].launches[-1] for name in stories}
    jobs = {name: job_of(launch) for name, launch in launches.items()}
    assert len(set(jobs.values())) == len(stories)

    dev.terminate(runs["terminated"])
    began = time.monotonic()
    eventually(lambda: state_of(cluster, jobs["terminated"]) == "CANCELLED", "the job is cancelled")
    seconds = time.monotonic() - began
    record_property("seconds from the termination to the job's end", seconds)
    print(f"the job was cancelled {seconds:.1f} s after the termination")
    dev.ends(runs["terminated"], dg.DagsterRunStatus.CANCELED)
    assert {state_of(cluster, jobs[name]) for name in NIGHT} == {"RUNNING"}

    dev.stop(signal.SIGKILL)
    for name in NIGHT:
        players[name].strike(heard[name])
    dev.open(launches["ends"])
    cluster.run(["scontrol", "requeue", jobs["requeues"]])
    eventually(lambda: state_of(cluster, jobs["ends"]) == "COMPLETED", "a job ends")
    again = Path(launches["requeues"].run_dir, "status")
    eventually(lambda: "restart=1" in again.read_text(), "a job begins anew")
    assert {dev.status(runs[name]) for name in NIGHT} == {dg.DagsterRunStatus.STARTED}

    dev.start()
    retries = {name: dev.retry_of(runs[name]) for name in NIGHT}
    for name in ("requeues", *PARTS):
        dev.hears(retries[name], "taken up again")
        dev.open(launches[name])
    for retry in retries.values():  # all of them before anything is counted: two make one asset's partitions
        dev.ends(retry, dg.DagsterRunStatus.SUCCESS)
    for name, story in NIGHT.items():
        assert "is gone" in dev.said(runs[name])
        found = dict(dev.materializations(story.moment))
        metadata = found[retries[name]]
        assert metadata["job/id"] == jobs[name]
        assert metadata["key"] == (story.partition or "")
        assert metadata.get("job/restarts") == (1 if name == "requeues" else None)
        assert jobs_named(cluster, metadata["job_name"]) in ([jobs[name]], [jobs[name]] * 2)
        assert len(found) == (len(PARTS) if story.partition else 1)
    for part in PARTS:  # what they said was shown in the first run
        assert SPEAKS not in dev.said(retries[part])


def launched(dev: Dev, stories: Sequence[Story]) -> list[str]:
    """Launch a run for each story, which the daemon retries."""
    return dev.launch_all(
        [[story.moment] for story in stories],
        in_process=[story.in_process for story in stories],
        tags=[{"dagster/partition": story.partition} if story.partition else {} for story in stories],
    )


def job_of(launch: Launch) -> str:
    found = parse_ledger(Path(launch.run_dir, LEDGER).read_bytes()).job_id
    assert found
    return found


def state_of(cluster: slurm.Cluster, job: str) -> str:
    return cluster.run(["squeue", "-h", "-t", "all", "-o", "%T", "-j", job]).stdout.strip()
