"""A project, its Dagster instance, its runs in processes that can be killed, and what its payloads wrote down."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import dagster as dg
import pytest
from ownership.worker import execute
from project_fixture import Project
from waiting import PATIENCE, eventually

import slurm_testcluster as slurm
from dagster_slurm_components import slurm_jobs_sensor
from dagster_slurm_components.hosts.satellite.processes import identify

TESTS = Path(__file__).parents[1]
SLURM = pytest.param("staging", marks=[pytest.mark.slurm, pytest.mark.slow])
everywhere = pytest.mark.parametrize("profile", ["local", SLURM])
"""Marks a test that runs on this machine and, as a slow one, on a real Slurm."""
SOON = PATIENCE
"""Seconds within which what is awaited has to happen on a busy machine, whose Slurm others use too."""

ACT = """
# act.sh NAME: writes down that it begins and ends; in between it waits for its gate.
printf 'begin %s\\n' "$1" >>"$MARKS/trace"
while [ ! -e "$MARKS/open" ] && [ ! -e "$MARKS/open.$1" ]; do sleep 0.05; done
if [ -e "$MARKS/fail.$1" ]; then exit 3; fi
printf 'end %s\\n' "$1" >>"$MARKS/trace"
"""
JOB = """
from pathlib import Path

import dagster as dg

from dagster_slurm_components import slurm_executor


def job():
    found = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    # Dagster's own job of all assets has a name that can't be executed from Python (dagster 1.13).
    both = dg.Definitions.merge(found, dg.Definitions(jobs=[dg.define_asset_job("everything")]))
    return both.resolve_job_def("everything")


def threads():
    found = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    jobs = [dg.define_asset_job("threads", executor_def=slurm_executor)]
    return dg.Definitions.merge(found, dg.Definitions(jobs=jobs)).resolve_job_def("threads")


def delegated():
    from ownership.delegate import delegating_executor

    found = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    jobs = [dg.define_asset_job("delegated", executor_def=delegating_executor)]
    return dg.Definitions.merge(found, dg.Definitions(jobs=jobs)).resolve_job_def("delegated")
"""
ASSETS = """
from pathlib import Path

import dagster as dg

from dagster_slurm_components import ComputeResource

ROOT = Path({root!r})
ACT = ROOT / "act.sh"


"""
RESOURCES = """
import dagster as dg

from dagster_slurm_components import ComputeResource


@dg.definitions
def resources():
    return dg.Definitions(resources={"compute": ComputeResource()})
"""
_names = itertools.count()


@dataclass
class Run:
    """A run that goes on: in a process of its own, or in a thread of the test's."""

    work: Work
    name: str
    process: subprocess.Popen[bytes] | None = None
    thread: threading.Thread | None = None

    @cached_property
    def id(self) -> str:
        """Dagster's id of it, as soon as there is one."""
        return eventually(self._find, f"run {self.name} begins\n{self.log}", SOON)

    def _find(self) -> str | None:
        gone = self.process is not None and self.process.poll() is not None
        found = self.work.instance.get_runs(dg.RunsFilter(tags={"test/name": self.name}))
        assert found or not gone, f"run {self.name} never began\n{self.log}"
        return found[0].run_id if found else None

    @property
    def log(self) -> str:
        file = self.work.project.root / f"{self.name}.log"
        return file.read_text() if file.exists() else ""

    def kill(self) -> None:
        """End its worker as the kernel does when memory is short."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(SOON)

    def interrupt(self) -> None:
        """Tell its worker to end, as Dagster does when a run is terminated."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)

    def ends(self, status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS) -> None:
        """Wait for its end, which has to be the one expected."""
        eventually(lambda: self.over, f"run {self.name} ends\n{self.work.said(self.id)}", SOON)
        assert self.work.status(self.id) is status, self.work.said(self.id)

    @property
    def over(self) -> bool:
        """Whether it has ended, and its worker with it."""
        gone = (
            self.process.poll() is not None if self.process else not (self.thread and self.thread.is_alive())
        )
        return gone and self.work.status(self.id) in _OVER


_OVER = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@dataclass
class Sensor:
    """The sensor `slurm_jobs`, evaluated by hand.

    Attributes:
        notes: What it told a person.
    """

    work: Work
    notes: list[str] = field(default_factory=list)
    cursor: str | None = None

    def tick(self) -> None:
        """Evaluate it once, with the cursor of the time before."""
        sensor = slurm_jobs_sensor(project=self.work.project.root, notify=self.notes.append)
        with dg.build_sensor_context(instance=self.work.instance, cursor=self.cursor) as context:
            sensor(context)
            self.cursor = context.cursor


@dataclass
class Work:
    """A project and all that happens in it.

    Attributes:
        project: The project.
        instance: Dagster's instance.
        profile: Where its jobs run.
        cluster: The cluster, where that is a real Slurm.
    """

    project: Project
    instance: dg.DagsterInstance
    profile: str
    cluster: slurm.Cluster | None = None
    runs: list[Run] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.marks.mkdir()
        self.file("act.sh", ACT)
        (self.project.root / "src" / self.project.package / "job.py").write_text(JOB)
        profile = self.project.root / "profiles" / f"{self.profile}.yaml"
        text = profile.read_text()
        if self.profile == "local":  # payloads at their gates need no core each
            text += "limits: {max_submit_jobs: 100}\n"
        profile.write_text(f"{text}env: {{MARKS: '{self.marks}'}}\n")

    @property
    def act(self) -> Path:
        """The payload that writes a trace and waits at a gate."""
        return self.project.root / "act.sh"

    @property
    def marks(self) -> Path:
        """Where payloads write their trace and look for their gates."""
        return self.project.root / "marks"

    def file(self, name: str, text: str) -> Path:
        """Write a file into the project's root."""
        path = self.project.root / name
        path.write_text(text)
        return path

    def assets(self, text: str) -> None:
        """Write the project's assets, in Python."""
        root = str(self.project.root)
        (self.project.defs.parent / "resources.py").write_text(RESOURCES)
        (self.project.defs.parent / "assets.py").write_text(ASSETS.format(root=root) + text)

    def open(self, *gates: str) -> None:
        """Open the gates of payloads; without a name all."""
        for gate in gates or ("",):
            (self.marks / f"open.{gate}".rstrip(".")).touch()

    def trace(self, event: str) -> Counter[str]:
        """Return how many payloads of each name had an event: `begin` or `end`."""
        file = self.marks / "trace"
        lines = file.read_text().splitlines() if file.exists() else []
        return Counter(name for each, name in (line.split(" ", 1) for line in lines) if each == event)

    def begins(self, name: str, times: int = 1) -> None:
        """Wait until a payload has begun so many times."""

        def begun() -> bool:
            if self.trace("begin")[name] >= times:
                return True
            assert not self.runs or not all(run.over for run in self.runs), (
                f"payload {name} never began {times} times"
            )
            return False

        try:
            eventually(begun, f"payload {name} begins", SOON)
        except AssertionError as error:
            said = "\n".join(self.said(run.id) + run.log for run in self.runs)
            raise AssertionError(f"{error}\n{said}") from None

    # Runs.

    def start(self, *, below: Sequence[str] = (), **options: object) -> Run:
        """Start a run in a process of its own, ``below`` a command or not; options as for ``worker.execute``."""
        run = Run(self, f"{self.project.package}-{next(_names)}")
        words = [str(TESTS / "ownership" / "worker.py"), str(self.project.root), self.project.package]
        words += [self.instance.root_directory, json.dumps({"name": run.name, **options})]
        with (self.project.root / f"{run.name}.log").open("wb") as log:
            run.process = subprocess.Popen(
                [*below, sys.executable, *words],
                cwd=self.project.root,
                env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}:{self.project.root / 'src'}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.runs.append(run)
        return run

    def begin(self, **options: object) -> Run:
        """Begin a run in a thread of this process."""
        run = Run(self, f"{self.project.package}-{next(_names)}")
        work = (self.project.root, self.project.package, self.instance)
        # A daemon: a step that never ends is a failed test, and no hanging one.
        run.thread = threading.Thread(
            target=execute, args=work, kwargs={"name": run.name, **options}, daemon=True
        )
        run.thread.start()
        self.runs.append(run)
        return run

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def said(self, run_id: str) -> str:
        """Return the text of a run's event log, its errors included."""
        return "\n".join(_text(entry) for entry in self.instance.all_logs(run_id))

    def hears(self, run: Run, text: str) -> None:
        """Wait until the log of a run holds a text."""
        try:
            eventually(lambda: text in self.said(run.id), f"{text!r} in the log of {run.name}", SOON)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said(run.id)}{run.log}") from None

    # Jobs.

    @property
    def workdir(self) -> Path:
        return self.project.root / (".dagster-slurm" if self.cluster is None else "cluster work")

    def jobs(self) -> list[str]:
        """Return all jobs that were ever submitted, by their ledgers."""
        ledgers = [ledger.read_text() for ledger in self.workdir.glob("runs/**/ledger")]
        lines = [line for text in ledgers for line in text.splitlines()]
        return sorted({line.partition("=")[2] for line in lines if line.startswith("job_id=")})

    def job(self) -> str:
        """Return the one job that there is."""
        (found,) = self.jobs()
        return found

    def live(self) -> set[str]:
        """Return the jobs that wait or run."""
        if self.cluster is not None:
            rows = self.cluster.run(
                ["squeue", "-h", "-t", "PENDING,RUNNING", "-o", "%i %Z"]
            ).stdout.splitlines()
            return {row.split(" ", 1)[0] for row in rows if str(self.workdir) in row}
        found = {job: job.partition(":") for job in self.jobs()}
        starts = identify([int(pid) for pid, _, _ in found.values()])
        return {job for job, (pid, _, start) in found.items() if starts.get(int(pid)) == start}

    def terminate(self, run: Run) -> None:
        """Terminate a run as Dagster does, and wait until it and its jobs have ended."""
        self.instance.report_run_canceling(self.run(run.id))
        run.interrupt()
        run.ends(dg.DagsterRunStatus.CANCELED)
        eventually(lambda: not self.live(), "all jobs end", SOON)

    def sensor(self) -> Sensor:
        """Return the sensor, with no cursor yet."""
        return Sensor(self)

    def tidy(self) -> None:
        """End what a test left: workers, and payloads at their gates."""
        for run in self.runs:
            if run.process is not None:
                with suppress(ProcessLookupError):
                    run.process.kill()
                run.process.wait(SOON)
        self.open()
        (self.project.root / "down").unlink(missing_ok=True)
        # Asked once: what ends in between would leave nothing to name, which newer Slurms refuse.
        if self.cluster is not None and (live := self.live()):
            self.cluster.run(["scancel", *live])
        eventually(lambda: not self.live(), "all jobs end", SOON)
        for run in self.runs:
            if run.thread is not None:
                run.thread.join(SOON)


def _text(entry: dg.EventLogEntry) -> str:
    event = entry.dagster_event
    failed = event.step_failure_data if event is not None and event.is_step_failure else None
    user = failed.user_failure_data.description if failed and failed.user_failure_data else ""
    error = failed.error.to_string() if failed and failed.error else ""
    texts = dict.fromkeys((entry.user_message, entry.message, user or "", error))
    return "\n".join(text for text in texts if text)
