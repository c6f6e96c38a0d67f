"""A real Slurm that keeps no accounts, and one whose slurmdbd is down: the queue tells how jobs end, and their records.

What only the accounting could tell is not there; where there is none nobody waits for it.
"""

from __future__ import annotations

import os
import queue
import re
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest
from cluster_fixture import find_node, lose_node
from left.conftest import Left
from project_fixture import Project, failure_text
from waiting import PATIENCE, eventually

import slurm_testcluster as slurm
from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.connect import connect
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.satellite.calls import Budget
from dagster_slurm_components.jobs import schedulers
from dagster_slurm_components.jobs import watch as watcher
from dagster_slurm_components.jobs.ending import cancel
from dagster_slurm_components.jobs.events import Changed, Ended, Event, Watch, next_event
from dagster_slurm_components.jobs.figures import job_figures
from dagster_slurm_components.jobs.model import JobHandle, JobIdentity, JobSpec
from dagster_slurm_components.jobs.outcome import judge
from dagster_slurm_components.jobs.reconcile import Patience
from dagster_slurm_components.jobs.retry import next_attempt
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.jobs.submit import submit
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.jobs.watch import Watcher
from dagster_slurm_components.launchers.base import LaunchPlan
from dagster_slurm_components.slurm.states import Phase
from dagster_slurm_components.spec.hosts import SshHost
from dagster_slurm_components.spec.retry import Retry

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SLEEP = "exec sleep 300"
HUNGRY = "exec python3 -c 'import time; held = bytearray(300 << 20); time.sleep(60)'"
NODE1 = {"nodelist": "node1", "mem": "50", "time": "5"}
NODE2 = {"nodelist": "node2", "mem": "50", "time": "5", "no-requeue": ""}
SPOT = {"partition": "spot", "nodelist": "node4", "mem": "7000", "time": "5"}


@dataclass(frozen=True)
class Story:
    """A job, what is done to it once it runs, and how it ends: in which state, and by which words."""

    script: str
    state: str
    message: str
    options: Mapping[str, str]
    then: tuple[str, ...] = ()


STORIES = {
    "success": Story("true", "COMPLETED", "exit code 0", NODE1),
    "failure": Story("exit 3", "FAILED", "exit code 3 on node1", NODE1),
    "signal": Story("kill -SEGV $$", "FAILED", r"exit code 139 \(signal SIGSEGV\)", NODE1),
    "time limit": Story(
        SLEEP,
        "TIMEOUT",
        "reached its time limit",
        NODE1,
        ("scontrol", "update", "JobId={job}", "EndTime=now"),
    ),
    "memory": Story(HUNGRY, "OUT_OF_MEMORY", "more memory than it asked for", NODE1),
    "user": Story(SLEEP, "CANCELLED", "by its user or by an administrator", NODE1, ("scancel", "{job}")),
    "node": Story(SLEEP, "NODE_FAIL", "A node of the job failed", NODE2, ("node2",)),
    "preempted": Story(
        SLEEP,
        "PREEMPTED",
        "A job of higher priority",
        SPOT,
        ("sbatch", "-p", "high", "-w", "node4", "--mem=7000", "-o", "/dev/null", "--wrap", "sleep 1"),
    ),
}


def place_in(folder: Path, cluster: slurm.Cluster | None = None) -> Target:
    """Return a place as a profile makes it, here or over ssh, whose queue is looked at ten times as often."""
    scheduler = SlurmScheduler(f"{folder}/queue", Budget(f"{folder}/queue/budget.json", 20, 20))
    scheduler.look, scheduler.max_age = 3.0, 5.0
    host = connect(SshHost.model_validate(cluster.profile["host"])) if cluster else InProcessHost()
    satellite = Satellite(host)
    return Target(satellite, scheduler, Watcher(satellite, scheduler, 3000.0), str(folder))


def job(name: str, script: str, options: Mapping[str, str] = NODE1) -> JobSpec:
    plan = LaunchPlan(script=f"{script}\n", payload=("true",))
    # The sampler would tell of a job's memory if that is there for long enough.
    return JobSpec(JobIdentity("r", name), plan, Activation(), sbatch=tuple(options.items()), sampler=False)


@pytest.fixture(scope="module", autouse=True)
def _slurm_conf(unaccounted: slurm.Cluster) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(unaccounted.slurm_conf))
        yield


@dataclass(frozen=True)
class End:
    """An end, and the seconds until it was told, since it was one to Slurm."""

    handle: JobHandle
    ended: Ended
    seconds: float


@pytest.fixture(scope="module")
def all_ends(
    unaccounted: slurm.Cluster, lab: slurm.Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Mapping[str, End]]:
    """All stories side by side on both clusters: by cluster and story."""
    lab.stop_daemon("slurmdbd")
    clusters = {"none": unaccounted, "slurmdbd is down": lab}
    places = {name: place_in(tmp_path_factory.mktemp("work"), cluster) for name, cluster in clusters.items()}
    # Whoever waited for what no accounting can tell would do so for longer than anybody waits here.
    places["none"].scheduler.patience = Patience(explanation=3600.0)
    with ThreadPoolExecutor() as pool:
        told = {name: pool.submit(play, cluster, places[name]) for name, cluster in clusters.items()}
    return {name: future.result() for name, future in told.items()}


@pytest.fixture
def ends(all_ends: Mapping[str, Mapping[str, End]]) -> Mapping[str, End]:
    """The ends where no accounts are kept."""
    return all_ends["none"]


def play(cluster: slurm.Cluster, place: Target) -> Mapping[str, End]:
    """Let the stories happen, as one process follows them."""
    told: queue.SimpleQueue[tuple[Watch, Event]] = queue.SimpleQueue()
    handles = {
        name: submit(place, job(name.replace(" ", "-"), s.script, s.options)) for name, s in STORIES.items()
    }
    for handle in handles.values():
        place.watcher.watch(handle, told=told)
    names = {handle.job_id: name for name, handle in handles.items()}
    struck: set[str] = set()
    found: dict[str, End] = {}
    deadline = time.monotonic() + PATIENCE
    while len(found) < len(STORIES):
        assert time.monotonic() < deadline, f"not ended: {STORIES.keys() - found.keys()}"
        heard = next_event(told, 1.0)
        if heard is None:
            continue
        name, event = names[heard[0].handle.job_id], heard[1]
        if isinstance(event, Changed) and event.observation.phase is Phase.RUNNING and name not in struck:
            struck.add(name)
            strike(cluster, STORIES[name].then, handles[name].job_id)
        elif isinstance(event, Ended):
            found[name] = End(handles[name], event, time.time() - ended_at(cluster, handles[name].job_id))
    find_node(cluster, "node2")
    place.satellite.host.close()
    return found


def ended_at(cluster: slurm.Cluster, job_id: str) -> float:
    """Return when a job ended, says Slurm, in seconds since the epoch."""
    shown = cluster.run(["scontrol", "show", "job", job_id]).stdout
    (end,) = re.findall(r" EndTime=(\S+)", shown)
    return datetime.fromisoformat(end).timestamp()


def strike(cluster: slurm.Cluster, then: tuple[str, ...], job_id: str) -> None:
    if len(then) == 1:
        lose_node(cluster, then[0])
    elif then:
        words = [word.format(job=job_id) for word in then]
        # slurmctld takes no end of a job for a time that is not after its start, in whole seconds.
        eventually(lambda: cluster.run(words, check=False).returncode == 0, f"{words} is taken")


@pytest.mark.parametrize("accounting", ["none", "slurmdbd is down"])
@pytest.mark.parametrize("name", STORIES)
def test_each_end_is_told_by_its_name_and_soon(
    all_ends: Mapping[str, Mapping[str, End]], accounting: str, name: str
) -> None:
    end, story = all_ends[accounting][name], STORIES[name]
    assert end.ended.observation.state == story.state
    outcome = judge(end.ended)
    assert re.search(story.message, outcome.message), outcome.message
    assert end.seconds < 60


def test_what_is_not_known_is_left_out(ends: Mapping[str, End]) -> None:
    """And not told as zero."""
    for end in ends.values():
        assert end.ended.evidence.accounting is None
    done = ends["success"]
    figures = job_figures(done.handle, done.ended, profile="p", host="h")
    assert figures["job/memory_asked_mib"] == 50
    assert figures["job/elapsed_s"] > 0  # type: ignore[operator]
    assert "job/memory_max_mib" not in figures, "there are no cgroups, and no accounting"
    assert "job/memory_efficiency" not in figures
    cut = job_figures(ends["memory"].handle, ends["memory"].ended, profile="p", host="h")
    assert not {"job/memory_max_mib", "job/elapsed_s", "job/exit_code", "job/cpu_efficiency"} & cut.keys()


@pytest.mark.parametrize(
    ("name", "policy", "changed"),
    [
        ("time limit", {"timeout": {"attempts": 1, "time": "x2"}}, {"time": "00:10:00"}),
        ("memory", {"out_of_memory": {"attempts": 1, "mem": "x4"}}, {"mem": "200M"}),
        ("node", {"node_fail": {"attempts": 1}}, {"exclude": "node2"}),
        ("preempted", {"preempted": {"attempts": 1}}, {}),
    ],
)
def test_retries_answer(
    ends: Mapping[str, End], name: str, policy: Mapping[str, object], changed: Mapping[str, str]
) -> None:
    ended, options = ends[name].ended, STORIES[name].options
    again = next_attempt(
        Retry.model_validate(policy), judge(ended), ended, options={"mem": "50M", **options}, retries={}
    )
    assert again is not None
    assert again.changed == changed


def test_a_cancel_of_ours_is_confirmed_by_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "_CONFIRMED", 3600.0)  # nothing else confirms it in time
    place = place_in(tmp_path)
    place.scheduler.patience = Patience(explanation=3600.0)
    handle = submit(place, job("cancelled", SLEEP))
    watch = place.watcher.watch(handle)
    eventually(lambda: _running(watch), "it runs")
    cancel(place, handle)
    place.watcher.cancelled(handle)
    ended = eventually(lambda: _end(watch), "its end")
    assert (ended.observation.state, ended.observation.source) == ("CANCELLED", "queue")


def _running(watch: Watch) -> bool:
    event = watch.next(timeout=0.2)
    return isinstance(event, Changed) and event.observation.phase is Phase.RUNNING


def _end(watch: Watch) -> Ended | None:
    event = watch.next(timeout=0.2)
    return event if isinstance(event, Ended) else None


def wrapped_sbatch(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a site's own sbatch first on PATH: the first time it does that, then what it would."""
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    program = folder / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ -e {folder}/called ] && exec {real} "$@"\n: >{folder}/called\n'
        + body.format(real=f'{real} "$@" >/dev/null')
        + "\necho 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2\nexit 1\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("body", "outcome"), [("{real}", "adopted"), ("", "submitted")], ids=["made", "not made"]
)
def test_an_sbatch_without_an_answer_is_settled_by_the_queue(
    unaccounted: slurm.Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    outcome: str,
) -> None:
    """The queue shows the job; or it does not for as long as one may take to show, and then it is submitted again."""
    monkeypatch.setattr(schedulers, "_VISIBLE", 3.0)
    wrapped_sbatch(tmp_path, body, monkeypatch)
    place, told = place_in(tmp_path / "work"), []
    handle = submit(
        place, job(f"unclear-{outcome}", "true", {**NODE1, "begin": "now+1hour"}), tell=told.append
    )
    assert handle.outcome == outcome
    assert "Socket timed out" in told[0]
    names = unaccounted.run(["squeue", "-h", "-o", "%i %j"]).stdout
    assert len(re.findall(f"unclear-{outcome}", names)) == 1
    unaccounted.run(["scancel", handle.job_id])


PARTS = """
scripts:
  - command: [bash, -c, 'echo "$DAGSTER_SLURM_PARTITION_KEY"; test "$DAGSTER_SLURM_PARTITION_KEY" != y']
    array: {max_parallel: 2}
    assets: [{key: a, partitions_def: {type: static, partition_keys: [x, y, z]}}]
"""


def test_an_array_tells_of_each_partition(
    unaccounted: slurm.Cluster, project: Project, instance: dg.DagsterInstance
) -> None:
    project.staging(unaccounted)
    project.scripts(PARTS)
    tags = {"dagster/asset_partition_range_start": "x", "dagster/asset_partition_range_end": "z"}
    result = project.run("staging", instance=instance, tags=tags)
    text = failure_text(result)
    assert "y" in text
    assert "exit code 1" in text
    made = [event.partition for event in result.get_asset_materialization_events()]
    assert sorted(str(partition) for partition in made) == ["x", "z"]
    records = list((project.root / "cluster work").rglob("elements/*/status"))
    assert len(records) == 3
    ids = {re.findall(r"(?m)^array_job_id=(\d+)$", record.read_text())[0] for record in records}
    ledgers = "".join(ledger.read_text() for ledger in (project.root / "cluster work").rglob("ledger"))
    assert ids == set(re.findall(r"(?m)^job_id=(\d+)$", ledgers))


def test_jobs_that_were_left_are_reported(
    unaccounted: slurm.Cluster, project: Project, instance: dg.DagsterInstance
) -> None:
    """One that ended well, and one that a person cancelled."""
    project.staging(unaccounted)
    left = Left(project, instance, "staging", unaccounted)
    left.scripts("{args: [a, a], assets: [{key: a}]}", "{args: [b, b], assets: [{key: b}]}")
    assert left.run().success
    (seen,) = left.observed("b")
    eventually(lambda: sorted(left.begun()) == ["a", "b"], "the payloads begin")
    unaccounted.run(["scancel", str(seen.metadata["job/id"].value)])
    left.open("a")
    left.reported()
    (made,) = left.made("a")
    assert made.metadata["rows"].value == 7
    assert left.made("b") == []
    (run,) = left.runs(dg.DagsterRunStatus.CANCELED)
    assert run.asset_selection == {dg.AssetKey("b")}
