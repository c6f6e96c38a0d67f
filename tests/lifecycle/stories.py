"""Processes of runs that are struck at observed moments, and what then becomes of the runs and their jobs."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from lifecycle.dev import Dev, Launch
from waiting import eventually

import slurm_testcluster as slurm
from dagster_slurm_components.jobs.events import MESSAGES
from dagster_slurm_components.jobs.lease import read_lease
from dagster_slurm_components.jobs.model import slug
from dagster_slurm_components.pipes.records import worker

MOMENTS = {
    "starting": "the step's process has begun; nothing is written down of a job",
    "announced": "the run is marked as one that has jobs, and its worker is written down",
    "submitting": "the host has the bundle and asks Slurm",
    "submitted": "Slurm gave a job id",
    "pending": "the step says that the job waits",
    "started": "the job runs, its payload does not",
    "speaking": "the payload wrote its first line",
    "running": "it is written down that a person saw the payload's first message",
    "reported": "the payload reported its result, and is not done yet",
    "ended": "the job has ended and Dagster's processes, asleep, do not know",
}
"""Each is also the name of an asset, so that several can be in one run."""
TARGETS = ("worker", "step", "group")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
PARTS = ("x", "y|z")
SPEAKS = "waiting at the gate"

PAYLOAD = """
    import os, sys, time
    from pathlib import Path
    from dagster_pipes import open_dagster_pipes

    name = os.environ["SLURM_JOB_NAME"]
    print("the payload has begun", flush=True)
    with open_dagster_pipes() as pipes:
        def wait(gate):
            while not Path(os.environ["GATES"], f"{name}.{gate}").exists():
                time.sleep(0.05)

        pipes.log.info("waiting at the gate")
        wait("report")
        key = pipes.partition_key if pipes.is_partition_step else ""
        pipes.report_asset_materialization(metadata={"answer": 42, "job_name": name, "key": key})
        wait("end")
"""
PLAIN = """
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        pipes.report_asset_materialization(metadata={"answer": 42})
"""


def scripts() -> str:
    """Return the YAML of one script a moment, one that is done at once, and some for other stories."""
    text = 'defaults: {resources: {time: "00:20:00"}}\nscripts:\n'
    for name in (*MOMENTS, "plain", "night_ends", "night_requeues", "night_parts"):
        more = ", resources: {begin: now+1hour}" if name == "pending" else ""
        parts = (
            f", partitions_def: {{type: static, partition_keys: {list(PARTS)}}}" if "parts" in name else ""
        )
        payload = "plain.py" if name == "plain" else "waits.py"
        env = "{GATES: \"{{ env('GATES') }}\"}"
        text += f"  - {{payload: {payload}, env: {env}, assets: [{{key: {name}{parts}}}]{more}}}\n"
    return text


@dataclass(frozen=True)
class Story:
    """Who is struck, with what, when, and whether the run's worker is the step's process too."""

    target: str
    number: signal.Signals
    moment: str
    in_process: bool = False
    partition: str | None = None


@dataclass(frozen=True)
class Heard:
    """What Dagster and the run directories say of a run by now."""

    launches: Sequence[Launch]
    workers: Mapping[str, frozenset[int]]
    said: Mapping[str, str]
    worker: int | None
    marked: bool
    dead: bool

    def launch(self, step: str, partition: str | None = None) -> Launch | None:
        """Return the newest attempt at a step."""
        folder = slug(partition) if partition is not None else None
        found = [each for each in self.launches if (each.step, each.partition) == (step, folder)]
        return found[-1] if found else None


class Ears:
    """Reads the event logs of runs; a log that did not change is not read again, for many are asked often."""

    def __init__(self, dev: Dev, instance: dg.DagsterInstance) -> None:
        self._dev = dev
        self._runs = dev.home / "history" / "runs"
        self._instance = instance
        self._logs: dict[str, tuple[object, Log]] = {}

    def __call__(self, run_id: str) -> Heard:
        stamp = [_stamp(self._runs / f"{run_id}.db{end}") for end in ("", "-wal")]
        known = self._logs.get(run_id)
        if known is None or known[0] != stamp:
            known = self._logs[run_id] = (stamp, self._read(run_id))
        log = known[1]
        run = self._instance.get_run_by_id(run_id)
        assert run is not None
        owner = worker(run)
        return Heard(
            self._dev.launches(run_id),
            log.workers,
            log.said,
            log.worker,
            owner is not None,
            owner is not None and owner.known_dead(),
        )

    def _read(self, run_id: str) -> Log:
        said: dict[str, str] = {}
        workers: dict[str, frozenset[int]] = {}
        number = None
        for entry in self._instance.all_logs(run_id):
            step, event = entry.step_key or "", entry.dagster_event
            said[step] = f"{said.get(step, '')}{entry.user_message}\n"
            found = re.match(r"Executing steps .*\(pid: (\d+)\)", entry.user_message)
            number = int(found[1]) if found else number
            if event is not None and event.event_type is dg.DagsterEventType.STEP_WORKER_STARTED:
                workers[step] = workers.get(step, frozenset()) | {event.pid or 0}
        return Log(said, workers, number)


@dataclass(frozen=True)
class Log:
    """What the event log of a run says."""

    said: Mapping[str, str]
    workers: Mapping[str, frozenset[int]]
    worker: int | None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


@dataclass
class Player:
    """Plays one story in a run."""

    dev: Dev
    cluster: slurm.Cluster
    story: Story
    struck: bool = False
    opened: bool = False
    asleep: list[int] = field(default_factory=list)

    @property
    def step(self) -> str:
        return self.story.moment

    def watch(self, heard: Heard) -> None:
        """Strike if the moment has come."""
        begun = heard.worker if self.story.in_process else heard.workers.get(self.step)
        if self.struck or not begun or not self._has_come(heard):
            return
        self.strike(heard)

    def strike(self, heard: Heard) -> None:
        """Send the signal now, to those that still are there."""
        for pid, number in (
            *((pid, self.story.number) for pid in self._targets(heard)),
            *((pid, signal.SIGCONT) for pid in self.asleep),
        ):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        self.struck = True

    def follow(self, heard: Heard) -> None:
        """Once a retry has the job, let the payload come to its end."""
        launch = heard.launch(self.step)
        if self.opened or launch is None:
            return
        taken = re.search(r"^Job (\d+) (.+) on ", heard.said.get(self.step, ""), re.MULTILINE)
        if taken is None:
            return
        if self.story.moment in ("pending", "started", "speaking", "running", "reported"):
            assert taken[2] == "taken up again", (self.story, taken[0])
        assert "exit=" not in _text(launch.run_dir, "status"), self.story
        self._open(launch, "report", "end")
        if self.story.moment == "pending":
            self.cluster.run(["scontrol", "update", f"JobId={taken[1]}", "StartTime=now"])
        self.opened = True

    def _has_come(self, heard: Heard) -> bool:
        if self.story.moment in ("starting", "announced"):
            return self.story.moment == "starting" or heard.marked
        launch = heard.launch(self.step)
        if launch is None:
            return False
        match self.story.moment:
            case "submitting":
                return "intent=" in _text(launch.run_dir, "ledger")
            case "submitted":
                return "job_id=" in _text(launch.run_dir, "ledger")
            case "pending":
                return "is PENDING" in heard.said[self.step]
            case "started":
                return "started=" in _text(launch.run_dir, "status")
            case "speaking":
                return "begun" in _text(launch.run_dir, "stdout.log")
        if not self.seen(heard):
            return False
        match self.story.moment:
            case "reported":
                self._open(launch, "report")
                return "report_asset_materialization" in _text(launch.run_dir, MESSAGES)
            case "ended":
                if not self.asleep:
                    self.asleep = self._targets(heard, "group" if self.story.target == "group" else "step")
                    for pid in self.asleep:
                        os.kill(pid, signal.SIGSTOP)
                    self._open(launch, "report", "end")
                    self.opened = True
                return "exit=" in _text(launch.run_dir, "status")
        return True

    def seen(self, heard: Heard) -> bool:
        """Whether it is written down that a person saw the payload's first message."""
        launch = heard.launch(self.step, self.story.partition)
        if launch is None or SPEAKS not in heard.said.get(self.step, ""):
            return False
        return read_lease(_text(launch.run_dir, "lease").encode()).shown.offsets.get(MESSAGES, 0) > 0

    def _targets(self, heard: Heard, target: str = "") -> list[int]:
        assert heard.worker is not None
        steps = sorted(heard.workers.get(self.step, ()))
        return {"worker": [heard.worker], "step": steps, "group": [heard.worker, *steps]}[
            target or self.story.target
        ]

    def _open(self, launch: Launch, *gates: str) -> None:
        for gate in gates:
            self.dev.open(launch, gate)


def _text(folder: str, name: str) -> str:
    try:
        return Path(folder, name).read_text()
    except FileNotFoundError:
        return ""


@dataclass
class Chain:
    """A run, and the runs that retry it until one succeeds."""

    players: Sequence[Player]
    runs: list[str]
    retry: Future[str] | None = None

    def watch(self, ears: Ears) -> bool:
        """Strike what is to be struck now; return whether all is."""
        for player in self.players:
            player.watch(ears(self.runs[-1]))
        return all(player.struck for player in self.players)

    def advance(self, instance: dg.DagsterInstance, ears: Ears, attach: Callable[[str], Future[str]]) -> bool:
        """Do what can be done now for a run whose processes were struck; return whether a run has succeeded."""
        if self.retry is not None:
            if not self.retry.done():
                return False
            self.runs.append(self.retry.result())
            self.retry = None
        run_id = self.runs[-1]
        heard = ears(run_id)
        if len(self.runs) > 1:
            for player in self.players:
                player.follow(heard)
        run = instance.get_run_by_id(run_id)
        assert run is not None
        if run.is_success:
            return True
        if run.is_finished or heard.dead:
            assert len(self.runs) < 4, "three retries were not enough"
            self.retry = attach(run_id)
        return False

    def told(self, ears: Ears) -> str:
        """Return what all runs say, for a failed test."""
        return "\n".join(f"--- {run_id}\n{''.join(ears(run_id).said.values())}" for run_id in self.runs)


def play(dev: Dev, cluster: slurm.Cluster, stories: Iterable[Story], also: Sequence[str] = ()) -> list[Chain]:
    """Play stories side by side, those that strike a step in one run; return the runs when all have succeeded.

    When all were struck, they are retried, as by `dg-slurm attach`; not by Dagster's daemon, which looks every five
    seconds and misses a failure that it sees before the run is marked as failed (dagster 1.13).

    Args:
        dev: Where the runs are launched.
        cluster: Where the jobs run.
        stories: The stories; of those that strike a step, one a moment.
        also: More assets for the run of these.
    """
    chosen = list(stories)
    steps = [Player(dev, cluster, story) for story in chosen if story.target == "step"]
    groups = [[Player(dev, cluster, story)] for story in chosen if story.target != "step"]
    groups += [steps] if steps else []
    selected = [[p.step for p in group] + (list(also) if group is steps else []) for group in groups]
    in_process = [any(player.story.in_process for player in group) for group in groups]
    alone = [{"dagster/max_retries": "0"}] * len(groups)
    runs = dev.launch_all(selected, in_process=in_process, tags=alone)
    chains = [Chain(group, [run_id]) for group, run_id in zip(groups, runs, strict=True)]
    with dev.instance() as instance, ThreadPoolExecutor(max(1, len(chains))) as pool:
        ears = Ears(dev, instance)
        waiting = list(chains)

        def attach(run_id: str) -> Future[str]:
            return pool.submit(dev.attach, run_id)

        def all_struck() -> bool:
            struck = [chain.watch(ears) for chain in chains]
            return all(struck)

        def all_over() -> bool:
            waiting[:] = [chain for chain in waiting if not chain.advance(instance, ears, attach)]
            return not waiting

        try:
            eventually(all_struck, "the processes of all runs are struck", 600, pause=0.02)
            eventually(all_over, "all runs succeed", 600)
        except AssertionError as error:
            told = "\n".join(chain.told(ears) for chain in waiting)
            raise AssertionError(f"{error}\n{told}") from error
    return chains


def check(dev: Dev, cluster: slurm.Cluster, chains: Sequence[Chain]) -> None:
    """Check that each step had one job and made one materialization, with all that belongs to it."""
    with dev.instance() as instance:
        ears = Ears(dev, instance)
        for chain in chains:
            for player in chain.players:
                launches = [each for each in dev.launches(chain.runs[0]) if each.step == player.step]
                assert len(launches) == 1, (player.story, launches)
                _check_one(dev, cluster, player, chain, launches[0].job_name, ears)


def _check_one(
    dev: Dev, cluster: slurm.Cluster, player: Player, chain: Chain, job_name: str, ears: Ears
) -> None:
    made = [
        (run, data)
        for run, data in dev.materializations(player.step)
        if data["job_name"] == job_name and run in chain.runs
    ]
    assert len(made) == 1, (player.story, made, chain.told(ears))
    metadata = made[0][1]
    assert complete(metadata), (player.story, metadata)
    jobs = eventually(lambda: jobs_named(cluster, job_name), "accounting")
    assert jobs == [metadata["job/id"]], player.story
    if player.story.moment in ("running", "reported", "ended"):  # it was shown in the first run
        shown = [run for run in chain.runs if SPEAKS in ears(run).said.get(player.step, "")]
        assert shown == chain.runs[:1], player.story


def complete(metadata: Mapping[str, Any]) -> bool:
    """Whether a materialization has all that the payload reported and the job's own record tells."""
    told = {"answer": 42, "job/exit_code": 0, "job/state": "COMPLETED", "job/profile": "staging"}
    known = {"job/host", "job/run_directory", "job/partition", "job/nodes", "job/elapsed_s", "job/node_hours"}
    return told.items() <= metadata.items() and known <= metadata.keys() and "job/restarts" not in metadata


def jobs_named(cluster: slurm.Cluster, name: str) -> list[str]:
    """Return the jobs in accounting that carry a name; duplicates are rows of one requeued job."""
    rows = cluster.run(["sacct", "-X", "-n", "-P", "--duplicates", "-o", "JobID", "--name", name]).stdout
    return rows.split()
