"""A seeded storm: runs are struck, terminated, re-executed and edited, and the host is cut off, in random order.

Each round has runs of its own, up to four, that re-execute one another on the real Slurm, over ssh; several rounds go
on side by side. After each: no two jobs of a step ran at the same time, no job lives that no unfinished run owns (or
that a person was told of), no result was collected twice or came from another payload, and no run is CANCELED or
SUCCESS while its job lives.

Run workers are forked from a process that has imported Dagster. A run is terminated, or marked as cancelled, by the API
of a real webserver, as the UI's buttons do it. ``ROUNDS`` (300), ``SEED`` (1),
``SIDE_BY_SIDE`` (6), ``ROUND`` (one alone); with ``EXECUTOR=slurm`` most runs are executed by ``slurm_executor``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from _lab import Lab, lab
from _storm import (
    CUT,
    KILL_STEP,
    KILL_WORKER,
    MARK,
    TERMINATE,
    TICK,
    Job,
    Materialization,
    Round,
    Run,
    Try,
    make_round,
    violations,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fault_proxy import FaultProxy
from project_fixture import BIN, Project, make_project

from dagster_slurm_components import slurm_jobs_sensor
from dagster_slurm_components.jobs.lease import CANCELLED, Attempt, parse_ledger, read_lease

PATIENCE = 240.0
PAYLOAD = """\
# version {version}
metadata='{{"version": {{"raw_value": "{version}", "type": "text"}}}}'
printf '{{"__dagster_pipes_version": "0.1", "method": "report_asset_materialization", "params": %s}}\\n' \\
  '{{"asset_key": "work_{number}", "data_version": null, "metadata": '"$metadata"'}}' >>"$DAGSTER_SLURM_MESSAGES"
echo begun
until [ -e {gate} ]; do sleep 0.2; done
"""
JOB = """\
import os, sys
from pathlib import Path
import dagster as dg

sys.path.insert(0, {source!r})
os.environ["DAGSTER_SLURM_PROFILE"] = "staging"
from {package}.definitions import defs
from dagster_slurm_components import slurm_executor

loaded = defs()
ups = [dg.asset(name=f"up_{{n}}")(lambda: None) for n in range({rounds})]
whole = dg.Definitions.merge(loaded, dg.Definitions(assets=ups))


def made(executor):
    n = os.environ["STORM_ROUND"]
    selection = dg.AssetSelection.assets(f"up_{{n}}", f"work_{{n}}")
    one = dg.define_asset_job(f"round_{{n}}", selection, executor_def=executor)
    return dg.Definitions.merge(whole, dg.Definitions(jobs=[one])).resolve_job_def(f"round_{{n}}")


def job():
    return made(dg.multi_or_in_process_executor)


def threads():
    return made(slurm_executor)
"""


class Webserver:
    """Dagster's, for its API."""

    TERMINATE = """
    mutation ($id: String!, $policy: TerminateRunPolicy!) {
      terminateRun(runId: $id, terminatePolicy: $policy) { __typename }
    }
    """

    def __init__(self, log: Path) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}/graphql"
        self._process = subprocess.Popen(
            [str(BIN / "dagster-webserver"), "--empty-workspace", "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
            stdin=subprocess.DEVNULL,
            stdout=log.open("ab"),
            stderr=subprocess.STDOUT,
        )
        eventually(self._answers, "the webserver starts")

    def _answers(self) -> bool:
        with suppress(OSError):
            return "version" in self._ask("{ version }")
        return False

    def _ask(self, query: str, **variables: str) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return dict(json.load(answer)["data"] or {})

    def terminate(self, run_id: str, *, mark: bool) -> None:
        """Terminate a run, as far as that is possible; ``mark`` it as cancelled at once, without waiting for it."""
        policy = "MARK_AS_CANCELED_IMMEDIATELY" if mark else "SAFE_TERMINATE"
        self._ask(self.TERMINATE, id=run_id, policy=policy)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)


class Workers:
    """Starts run workers."""

    def __init__(self, job: Path, log: Path) -> None:
        environment = {**os.environ, "STORM_JOB": str(job), "STORM_LOG": str(log)}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("_storm_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("ab"),
            text=True,
            env=environment,
        )
        self._lock = threading.Lock()

    def start(self, order: dict[str, object]) -> int:
        """Start one; return its process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            return int(json.loads(self._process.stdout.readline())["pid"])

    def close(self) -> None:
        """End what makes them; workers that live go on."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


@dataclass
class Storm:
    """Everything that the rounds share."""

    setting: Lab
    project: Project
    proxy: FaultProxy
    workers: Workers
    webserver: Webserver
    instance: dg.DagsterInstance
    told: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    facts: dict[int, dict[str, int]] = field(default_factory=dict)
    cursor: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def tick(self) -> None:
        """Evaluate the sensor once, as Dagster's daemon does."""
        with self.lock:
            sensor = slurm_jobs_sensor(project=self.project.root, notify=self._told)
            context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
            sensor.evaluate_tick(context)
            self.cursor = context.cursor
        self.counts["sensor ticks"] += 1

    def _told(self, text: str) -> None:
        self.told.update(word.rstrip(":") for word in text.split() if word.count("-") == 4)

    def cut(self) -> None:
        """Take the host away for a moment, from everybody."""
        self.proxy.refuse = True
        self.proxy.cut()
        time.sleep(1.0)
        self.proxy.refuse = False
        self.counts["cuts"] += 1

    def payload(self, number: int) -> Path:
        """The payload of a round."""
        return Path(self.project.defs, f"work_{number}.sh")

    def gate(self, number: int) -> Path:
        """The payload of a round waits until this is there."""
        return Path(self.project.root, "gates", str(number))

    def write(self, number: int, version: str) -> None:
        """Edit the payload of a round."""
        text = PAYLOAD.format(number=number, version=version, gate=self.gate(number))
        self.payload(number).write_text(text)

    def runs(self, tag: str) -> list[dg.DagsterRun]:
        """Return the runs of a try: one, once it has begun."""
        return list(self.instance.get_runs(dg.RunsFilter(tags={"storm": tag})))

    def attempts(self, number: int) -> list[Attempt]:
        """Return the attempts of a round's step: its host is this machine, reached over ssh by the runs alone."""
        found = []
        for lease in self.workdir.glob(f"runs/*/work_{number}/*/lease"):
            ledger = lease.with_name("ledger").read_bytes()
            attempt = Attempt(
                int(lease.parent.name),
                str(lease.parent),
                read_lease(lease.read_bytes()),
                parse_ledger(ledger),
            )
            found.append(attempt)
        return found

    @property
    def workdir(self) -> Path:
        """The profile's working folder."""
        return Path(self.project.root, "cluster work")


def eventually(attempt: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not attempt():
        assert time.monotonic() < deadline, f"it took too long: {what}"
        time.sleep(0.2)


def play(storm: Storm, story: Round) -> list[str]:
    """Play a round; return what was violated."""
    number = story.number
    versions: dict[str, str] = {}
    parent: str | None = None
    version = 0
    storm.write(number, "0")
    for index, one in enumerate(story.tries):
        last = index == len(story.tries) - 1
        if one.edited:
            version += 1
            storm.write(number, str(version))
            storm.counts["edits"] += 1
        run_id, pid = _begin(storm, story, one, index, parent)
        if run_id is not None:
            versions[run_id] = str(version)
        _events(storm, story, one, run_id, pid)
        if last:
            storm.gate(number).touch()
        _end(storm, run_id, pid, index, last=last)
        parent = run_id or parent
        run = storm.instance.get_run_by_id(parent) if parent else None
        if run is not None and run.is_success and not last:
            break  # the payload was through before it was struck
    wrong = _judge(storm, number, versions)
    if not storm.facts[number]["results"]:
        wrong.append("the last run was let go to its end, and brought no result")
    return wrong


def _begin(storm: Storm, story: Round, one: Try, index: int, parent: str | None) -> tuple[str | None, int]:
    tag = f"{story.number}-{index}"
    order = {
        "tag": tag,
        "round": story.number,
        "parent": parent,
        "all_steps": one.all_steps,
        "multiprocess": story.multiprocess,
    }
    pid = storm.workers.start(order)
    storm.counts["runs"] += 1
    if one.begun:
        eventually(
            lambda: _begun(storm, story.number, tag) or not _alive(pid) or _ended(storm, tag), f"{tag} begins"
        )
    else:
        time.sleep(one.delay)
    # A run that has not started yet is cancelled by Dagster before any process of it works: nothing to see here.
    eventually(lambda: _started(storm, tag) or not _alive(pid), f"{tag} starts")
    runs = storm.runs(tag)
    return (runs[0].run_id if runs else None), pid


def _begun(storm: Storm, number: int, tag: str) -> bool:
    """Whether a run follows a job whose payload has begun."""
    runs = {run.run_id for run in storm.runs(tag)}
    return any(
        attempt.lease.owner is not None
        and attempt.lease.owner.run_id in runs
        and Path(attempt.run_dir, "stdout.log").exists()
        and Path(attempt.run_dir, "stdout.log").stat().st_size > 0
        for attempt in storm.attempts(number)
    )


def _started(storm: Storm, tag: str) -> bool:
    early = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING)
    return any(run.status not in early for run in storm.runs(tag))


def _ended(storm: Storm, tag: str) -> bool:
    return any(run.is_finished for run in storm.runs(tag))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _events(storm: Storm, story: Round, one: Try, run_id: str | None, pid: int) -> None:
    for event in one.events:
        run = storm.instance.get_run_by_id(run_id) if run_id else None
        storm.counts[event] += 1
        if event == TICK:
            storm.tick()
        elif event == CUT:
            storm.cut()
        elif event == KILL_WORKER:
            _kill(pid)
        elif event == KILL_STEP:
            for child in _children(pid) or [pid]:  # it may have no process of its own yet
                _kill(child)
        elif event == TERMINATE and run is not None and not run.is_finished:
            storm.webserver.terminate(run.run_id, mark=False)
        elif event == MARK and run is not None and not run.is_finished:
            storm.webserver.terminate(run.run_id, mark=True)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    """Return the processes that a worker's fork server made: they are in its session."""
    listed = subprocess.run(["ps", "-s", str(pid), "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split() if int(word) != pid]


def _end(storm: Storm, run_id: str | None, pid: int, index: int, *, last: bool) -> None:
    """Wait until a try is over: its process has ended, and Dagster, or the sensor, knows of that."""
    if run_id is None:
        eventually(lambda: not _alive(pid), "a worker without a run ends")
        return

    def over() -> bool:
        run = storm.instance.get_run_by_id(run_id)
        if run is not None and run.is_finished:
            return not last or not _alive(pid)
        if not _alive(pid):
            storm.tick()
            run = storm.instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished:  # struck before it had a job: run monitoring's part
                storm.instance.report_run_failed(run, "its worker is gone")
        return False

    eventually(over, f"run {run_id} is over (try {index})")


def _judge(storm: Storm, number: int, versions: dict[str, str]) -> list[str]:
    """Let the sensor finish what is left, and look at what is true then."""
    deadline = time.monotonic() + 60
    while True:
        wrong = _violations(storm, number, versions)
        if not wrong or time.monotonic() > deadline:
            return wrong
        storm.tick()
        time.sleep(2.0)


def _violations(storm: Storm, number: int, versions: dict[str, str]) -> list[str]:
    attempts = storm.attempts(number)
    owners = {
        attempt.ledger.job_id: attempt.lease.owner.run_id
        for attempt in attempts
        if attempt.ledger.job_id and attempt.lease.owner
    }
    runs = {}
    for run_id, version in versions.items():
        run = storm.instance.get_run_by_id(run_id)
        if run is not None:
            runs[run_id] = Run(run_id, run.status.value, version)
    stored = storm.instance.fetch_materializations(dg.AssetKey(f"work_{number}"), limit=100).records
    materializations = [
        Materialization(
            record.run_id,
            str(record.asset_materialization.metadata["job/id"].value),
            str(record.asset_materialization.metadata["version"].value),
        )
        for record in stored
        if record.asset_materialization
    ]
    jobs = _jobs(storm, number)
    storm.facts[number] = {
        "jobs": len(jobs),
        "results": len(materializations),
        "taken over": sum(attempt.lease.epoch > 1 for attempt in attempts),
        "cancelled": sum(attempt.lease.state == CANCELLED for attempt in attempts),
    }
    return violations(jobs, runs, materializations, owners=owners, told=storm.told)


def _jobs(storm: Storm, number: int) -> list[Job]:
    names = {f"work_{number}-{attempt.ledger.token}" for attempt in storm.attempts(number)}
    if not names:
        return []
    asked = storm.setting.cluster.run(
        [
            "sacct", "--noheader", "--parsable2", "--allocations", f"--name={','.join(sorted(names))}",
            "--starttime=now-1days", "--format=JobIDRaw,State,Start,End",
        ]
    )  # fmt: skip
    jobs = []
    for line in asked.stdout.splitlines():
        job_id, state, start, end = line.split("|")
        live = state in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED")
        jobs.append(Job(job_id, _epoch(start), None if live else _epoch(end)))
    return jobs


def _epoch(text: str) -> int | None:
    if not text[:1].isdigit():
        return None
    return int(time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S")))


@contextmanager
def stormy(rounds: int) -> Iterator[Storm]:
    """Bring everything up."""
    with lab() as setting, tempfile.TemporaryDirectory(prefix="dg-slurm-agent-") as agent:
        os.environ["DAGSTER_SLURM_AGENT_DIR"] = agent
        project = make_project(setting.project / "location")
        project.staging(setting.cluster)
        profile = project.root / "profiles" / "staging.yaml"
        port = next(
            line.split()[1] for line in profile.read_text().splitlines() if line.startswith("  port:")
        )
        proxy = FaultProxy(int(port))
        known = next(
            line.split()[1].strip("'\"")
            for line in profile.read_text().splitlines()
            if "known_hosts_file" in line
        )
        hosts = project.root / "known_hosts"
        hosts.write_text(Path(known).read_text().replace(f":{port} ", f":{proxy.port} "))
        text = profile.read_text().replace(f"port: {port}", f"port: {proxy.port}").replace(known, str(hosts))
        # Many processes that ask Slurm within one small budget are another benchmark's matter.
        text += "limits: {queries_per_minute: 120, burst: 120}\n"
        profile.write_text(text.replace("host:\n", "host:\n  reconnect_interval: 1\n", 1))
        (project.root / "gates").mkdir()
        scripts = "scripts:\n"
        for number in range(rounds):
            scripts += (
                f"  - {{payload: work_{number}.sh, assets: [{{key: work_{number}, deps: [up_{number}]}}]}}\n"
            )
            project.write(f"work_{number}.sh", "")
        project.scripts(scripts)
        job = project.root / "storm_job.py"
        source = str(project.root / "src")
        job.write_text(JOB.format(source=source, package=project.package, rounds=rounds))
        home = Path(os.environ["DAGSTER_HOME"])
        (home / "dagster.yaml").write_text(
            "telemetry: {enabled: false}\nrun_launcher: {module: _storm_launcher, class: StormLauncher}\n"
        )
        log = Path(os.environ.get("STORM_LOG") or project.root / "storm.log")
        workers = Workers(job, log)
        try:
            webserver = Webserver(log)
            try:
                with dg.DagsterInstance.get() as instance:
                    yield Storm(setting, project, proxy, workers, webserver, instance)
            finally:
                webserver.close()
        finally:
            workers.close()
            subprocess.run(
                [sys.executable, "-m", "dagster_slurm_components.cli.main", "agent", "stop"], check=False,
                capture_output=True,
            )  # fmt: skip
            proxy.close()


def main() -> None:
    seed, rounds = int(os.environ.get("SEED", "1")), int(os.environ.get("ROUNDS", "300"))
    only = os.environ.get("ROUND")
    numbers: Sequence[int] = [int(only)] if only else range(rounds)
    broken: dict[int, list[str]] = {}
    began = time.monotonic()
    with stormy(max(numbers) + 1) as storm:

        def one(number: int) -> None:
            story = make_round(seed, number)
            try:
                wrong = play(storm, story)
            except AssertionError as error:
                wrong = [f"not settled: {error}"]
            if wrong:
                broken[number] = wrong
                print(f"SEED={seed} ROUND={number}: {wrong}\n  {story}", file=sys.stderr, flush=True)

        with ThreadPoolExecutor(int(os.environ.get("SIDE_BY_SIDE", "6"))) as pool:
            list(pool.map(one, numbers))
        counts = storm.counts
        for facts in storm.facts.values():
            counts.update(facts)
    kinds = Counter(text.split(",")[0].split(" ")[-1] for wrong in broken.values() for text in wrong)
    print(
        json.dumps(
            {
                "benchmark": "ownership",
                "rounds": len(numbers),
                "seed": seed,
                "violations": sum(map(len, broken.values())),
                "kinds": kinds,
                "seconds": round(time.monotonic() - began),
                "met": not broken,
                **counts,
            }
        )
    )


if __name__ == "__main__":
    main()
