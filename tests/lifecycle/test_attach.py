"""F3: a run of `dg launch` is a run like any other. Whatever ends its process, its job is taken up in a terminal.

As a person does it: real `dg launch` and `dg-slurm` programs, no webserver, no daemon.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from ports import free_port
from project_fixture import BIN, Project, make_project
from waiting import PATIENCE, eventually

from dagster_slurm_components.pipes.records import worker

STATUS = dg.DagsterRunStatus
ROOT = Path(__file__).parents[2]
PAYLOAD = """
    import os, time
    from pathlib import Path
    from dagster_pipes import open_dagster_pipes

    marks = Path(os.environ["MARKS"])
    with open_dagster_pipes() as pipes:
        key = pipes.partition_key if pipes.is_partition_step else ""
        with (marks / "trace").open("a") as trace:
            trace.write(f"begin {key}\\n")
        while not (marks / "open").exists():
            time.sleep(0.05)
        if (marks / "fail").exists():
            raise ValueError("made to fail")
        pipes.report_asset_materialization(metadata={"answer": 42, "token": os.environ["TOKEN"], "key": key})
"""
SCRIPTS = """
    defaults: {{env: {{MARKS: "{root}", TOKEN: "{{{{ env('TOKEN') }}}}"}}}}
    scripts:
      - {{payload: gate.py, assets: [{{key: works}}]}}
      - payload: gate.py
        name: parts
        assets: [{{key: parts, partitions_def: {{type: static, partition_keys: [x, "y z"]}}}}]
"""
ASKS = """
    import dagster as dg

    @dg.asset(config_schema={"needed": int})
    def asks() -> None: ...
"""
"""Nobody who runs another asset should be asked for this one's configuration."""
DAGSTER_YAML = "run_retries: {enabled: true, max_retries: 3}\ntelemetry: {enabled: false}\n"


@dataclass
class Desk:
    """A person's terminal, and the project in front of it."""

    project: Project
    started: list[subprocess.Popen[str]]
    _instance: dg.DagsterInstance | None = None

    @property
    def home(self) -> Path:
        return self.project.root / "dagster home"

    @property
    def trace(self) -> list[str]:
        file = self.project.root / "trace"
        return file.read_text().splitlines() if file.exists() else []

    def environment(self, **more: str | None) -> dict[str, str]:
        given = {key: text for key, text in os.environ.items() if not key.startswith("DAGSTER_")}
        wanted = {
            **given,
            "DAGSTER_SLURM_AGENT": "off",
            "DAGSTER_HOME": str(self.home),
            "PYTHONPATH": f"{self.project.root / 'src'}:{ROOT}",
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "COLUMNS": "200",
            **more,
        }
        return {key: text for key, text in wanted.items() if text is not None}

    def start(self, *argv: str, cwd: Path | None = None, **env: str | None) -> subprocess.Popen[str]:
        """Start a program in a terminal of its own."""
        process = subprocess.Popen(
            [str(BIN / argv[0]), *argv[1:]],
            cwd=cwd or self.project.root,
            env=self.environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(self.project.root / f"{argv[0]}.log").open("a"),
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def call(self, *argv: str, status: int, **env: str | None) -> str:
        """Run a program to its end; return all that it said."""
        done = subprocess.run(
            [str(BIN / argv[0]), *argv[1:]],
            cwd=self.project.root,
            env=self.environment(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def launch(self, asset: str, *more: str) -> tuple[subprocess.Popen[str], str]:
        """`dg launch`, in the profile `night`, until its payload waits; return it and its run."""
        process = self.start("dg", "launch", "--assets", asset, *more, DAGSTER_SLURM_PROFILE="night")
        eventually(lambda: self.trace, "the payload begins", PATIENCE)
        with self.instance() as instance:
            (run,) = instance.get_runs()
        return process, run.run_id

    def open(self) -> None:
        (self.project.root / "open").touch()

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Give Dagster's instance, which stays open until the end: to open one costs more than most questions to it."""
        if self._instance is None:
            self._instance = dg.DagsterInstance.from_config(str(self.home))
        yield self._instance

    def run(self, run_id: str) -> dg.DagsterRun:
        with self.instance() as instance:
            run = instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def lives(self, run_id: str) -> bool:
        owner = worker(self.run(run_id))
        return owner is not None and not owner.known_dead()

    def said(self, run_id: str) -> str:
        with self.instance() as instance:
            return "\n".join(entry.user_message for entry in instance.all_logs(run_id))

    def child(self, run_id: str) -> dg.DagsterRun | None:
        with self.instance() as instance:
            found = instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run_id}))
        return found[0] if found else None

    def metadata(self, asset: str) -> list[tuple[str, dict[str, Any]]]:
        """Return who materialized an asset, and with what."""
        with self.instance() as instance:
            records = instance.fetch_materializations(dg.AssetKey(asset), limit=10).records
        return [
            (each.run_id, {key: value.value for key, value in each.asset_materialization.metadata.items()})
            for each in records
            if each.asset_materialization
        ]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    project = make_project(tmp_path / "my project")
    project.profile("night", "host: {type: local}\nscheduler: process\nworkdir: night work\n")
    project.write("gate.py", PAYLOAD)
    project.scripts(SCRIPTS.format(root=project.root))
    project.write("../asks.py", ASKS)
    (project.root / ".env").write_text("TOKEN=of-the-env-file\n")
    made = Desk(project, [])
    made.home.mkdir()
    (made.home / "dagster.yaml").write_text(DAGSTER_YAML)
    try:
        yield made
    finally:
        made.open()
        for process in made.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        if made._instance is not None:
            made._instance.dispose()
        eventually(lambda: _all_over(project), "the jobs end", PATIENCE)


def _all_over(project: Project) -> bool:
    statuses = [each.with_name("status") for each in (project.root / "night work").rglob("ledger")]
    return all(file.exists() and "exit=" in file.read_text() for file in statuses)


def ctrl_c(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)


def terminate(process: subprocess.Popen[str]) -> None:
    process.terminate()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("ends", [ctrl_c, terminate, kill])
def test_f3_the_job_of_a_dg_launch_is_collected_in_a_terminal(
    desk: Desk, ends: Callable[[subprocess.Popen[str]], None], tmp_path: Path
) -> None:
    launched, run_id = desk.launch("works")
    ends(launched)
    assert launched.wait(PATIENCE) != 0
    if ends is not kill:
        said = desk.said(run_id)
        assert "This step ends; job " in said
        assert f"dg-slurm attach {run_id}" in said
        assert re.search(r"dg-slurm jobs cancel \S.* --profile night", said)

    # From another folder, and without the profile: a job is taken up only as what it was.
    attached = desk.start("dg-slurm", "attach", run_id[:8], "--json", cwd=tmp_path)
    retry = eventually(lambda: desk.child(run_id), "the retry begins", PATIENCE)
    eventually(lambda: "taken up again" in desk.said(retry.run_id), "the job is taken up", PATIENCE)
    assert desk.metadata("works") == []
    desk.open()
    assert attached.wait(PATIENCE) == 0

    assert attached.stdout is not None
    told = json.loads(attached.stdout.read())
    assert told == {"run_id": retry.run_id, "retry_of": run_id, "success": True}
    assert desk.trace == ["begin "]
    ((by, metadata),) = desk.metadata("works")
    assert (by, metadata["answer"], metadata["token"]) == (retry.run_id, 42, "of-the-env-file")
    log = (desk.project.root / "dg-slurm.log").read_text()
    assert f"run {run_id} is re-executed from its failure in {desk.project.root}, profile night" in log
    assert "taken up again" in log, "the terminal shows what happens"
    assert desk.run(run_id).status is STATUS.FAILURE
    assert desk.run(retry.run_id).tags["dagster/root_run_id"] == run_id

    said = desk.call("dg-slurm", "attach", run_id, status=1)
    assert f"run {retry.run_id} went on for run {run_id}, and is SUCCESS" in said


@pytest.mark.slow
def test_f3_results_are_collected_after_the_job_has_ended_and_the_partition_stays(desk: Desk) -> None:
    launched, run_id = desk.launch("parts", "--partition", "y z")
    terminate(launched)
    launched.wait(PATIENCE)
    desk.open()
    eventually(lambda: _all_over(desk.project), "the job ends by itself", PATIENCE)
    said = desk.call("dg-slurm", "jobs", "attach", run_id, status=0)
    retry = desk.child(run_id)
    assert retry is not None
    assert f"run {retry.run_id} went on for run {run_id} and is SUCCESS" in said
    assert desk.trace == ["begin y z"]
    assert retry.tags["dagster/partition"] == "y z"
    assert "dagster/will_retry" not in retry.tags
    assert [metadata["key"] for _, metadata in desk.metadata("parts")] == ["y z"]


@pytest.mark.slow
def test_f3_the_terminal_that_went_on_is_struck_too_and_the_last_one_fails(desk: Desk) -> None:
    """Each retry can be taken up as the first run was; what fails ends with status 1."""
    launched, first = desk.launch("works")
    kill(launched)
    launched.wait(PATIENCE)
    attached = desk.start("dg-slurm", "attach", first)
    second = eventually(lambda: desk.child(first), "the retry begins", PATIENCE).run_id
    eventually(lambda: "taken up again" in desk.said(second), "the job is taken up", PATIENCE)
    assert f"run {second} went on for run {first}, and is STARTED" in desk.call(
        "dg-slurm", "attach", first, status=1
    )
    refused = desk.call("dg-slurm", "attach", second, status=1)
    assert f"run {second} is STARTED, and its process is not known to be dead" in refused
    ctrl_c(attached)
    assert attached.wait(PATIENCE) == 1
    said = desk.call("dg-slurm", "attach", first, status=1)
    assert f"To go on from there: dg-slurm attach {second}" in said

    (desk.project.root / "fail").touch()
    desk.open()
    said = desk.call("dg-slurm", "attach", second, status=1)
    third = desk.child(second)
    assert third is not None
    assert f"run {third.run_id} went on for run {second} and is FAILURE" in said
    assert third.root_run_id == third.tags["dagster/root_run_id"] == first
    assert desk.trace[0] == "begin "


@pytest.mark.slow
def test_f3_the_job_of_a_dg_launch_is_cancelled_in_a_terminal(desk: Desk) -> None:
    """By the command that the step itself named."""
    launched, run_id = desk.launch("works")
    terminate(launched)
    launched.wait(PATIENCE)
    (command,) = re.findall(r"To cancel it: dg-slurm (.*)", desk.said(run_id))
    assert "is being cancelled" in desk.call("dg-slurm", *command.split(), status=0)
    (status,) = (desk.project.root / "night work").rglob("status")
    eventually(lambda: _all_over(desk.project), "the job ends", PATIENCE)
    assert "exit=0" not in status.read_text()


@pytest.mark.slow
def test_f3_a_run_of_a_temporary_home_says_so(desk: Desk) -> None:
    launched = desk.start(
        "dg", "launch", "--assets", "works", DAGSTER_HOME=None, DAGSTER_SLURM_PROFILE="night"
    )
    eventually(lambda: desk.trace, "the payload begins", PATIENCE)
    terminate(launched)
    launched.wait(PATIENCE)
    log = (desk.project.root / "dg.log").read_text()
    assert "Dagster keeps no record of this run, as without DAGSTER_HOME" in log
    assert re.search(r"dg-slurm jobs cancel \S.* --profile night", log)
    assert "dg-slurm attach" not in log
    (run_id,) = {
        each.relative_to(desk.project.root / "night work" / "runs").parts[0]
        for each in (desk.project.root / "night work" / "runs").rglob("ledger")
    }
    said = desk.call("dg-slurm", "attach", run_id, status=1, DAGSTER_HOME=None)
    assert "Set DAGSTER_HOME to the folder with which the run was launched." in said
    assert "such a run can't be taken up" in said
    said = desk.call("dg-slurm", "attach", run_id, status=1)
    assert f"there is no run '{run_id}' in {desk.home}" in said
    assert "such a run can't be taken up" in said


REPOSITORIES = "{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name } } } } }"
LAUNCH = """
mutation ($location: String!, $asset: String!) {
  launchRun(executionParams: {selector: {
    repositoryLocationName: $location, repositoryName: "__repository__", jobName: "__ASSET_JOB",
    assetSelection: [{path: [$asset]}]
  }}) { ... on LaunchRunSuccess { run { runId } } }
}
"""


@dataclass
class Webserver:
    """A `dg dev`."""

    process: subprocess.Popen[str]
    url: str

    @classmethod
    def start(cls, desk: Desk) -> Webserver:
        port = free_port()
        argv = ["dg", "dev", "--port", str(port), "--host", "127.0.0.1"]
        made = cls(desk.start(*argv, DAGSTER_SLURM_PROFILE="night"), f"http://127.0.0.1:{port}")
        eventually(made._location, "dg dev starts", PATIENCE)
        return made

    def _ask(self, query: str, **variables: str) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
        return data

    def _location(self) -> str | None:
        try:
            nodes = self._ask(REPOSITORIES)["repositoriesOrError"].get("nodes")
        except OSError:
            return None
        return nodes[0]["location"]["name"] if nodes else None

    def launch(self, asset: str) -> str:
        location = self._location()
        assert location is not None
        return str(self._ask(LAUNCH, location=location, asset=asset)["launchRun"]["run"]["runId"])

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


@pytest.mark.slow
def test_f3_what_a_webserver_launched_needs_none_to_go_on(desk: Desk) -> None:
    """As after a power cut."""
    webserver = Webserver.start(desk)
    theirs = webserver.launch("works")
    eventually(lambda: desk.trace, "the payload begins", PATIENCE)
    eventually(lambda: "slurm/job_id" in desk.run(theirs).tags, "the job is known", PATIENCE)
    webserver.kill()
    eventually(lambda: not desk.lives(theirs), "the run worker is gone", PATIENCE)
    desk.open()
    said = desk.call("dg-slurm", "attach", theirs[:8], status=0)
    retry = desk.child(theirs)
    assert retry is not None
    assert f"run {retry.run_id} went on for run {theirs} and is SUCCESS" in said
    assert desk.trace == ["begin "]
    assert desk.run(theirs).tags["dagster/will_retry"] == "false", (
        "a daemon that starts later leaves it alone"
    )


def _again(desk: Desk, asset: str, *more: str) -> tuple[subprocess.Popen[str], str]:
    """Launch once more; return the process and its run, once that is there."""
    with desk.instance() as instance:
        before = {run.run_id for run in instance.get_runs()}

    def newer() -> str | None:
        with desk.instance() as instance:
            return next((run.run_id for run in instance.get_runs() if run.run_id not in before), None)

    process = desk.start("dg", "launch", "--assets", asset, *more, DAGSTER_SLURM_PROFILE="night")
    return process, eventually(newer, "the run is there", PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize("ends", [ctrl_c, kill])
def test_f3_the_next_launch_takes_up_what_an_interrupted_one_left(
    desk: Desk, ends: Callable[[subprocess.Popen[str]], None]
) -> None:
    """Whatever ends the terminal, and again, when that launch is struck too; what was collected is made anew."""
    launched, first = desk.launch("works")
    ends(launched)
    launched.wait(PATIENCE)
    launched, second = _again(desk, "works")
    eventually(lambda: "taken up again" in desk.said(second), "the job is taken up", PATIENCE)
    assert f"which the interrupted run {first} left behind, has the same content" in desk.said(second)
    ends(launched)
    launched.wait(PATIENCE)
    launched, third = _again(desk, "works")
    eventually(lambda: "taken up again" in desk.said(third), "the job is taken up", PATIENCE)
    said = desk.call("dg-slurm", "attach", first, status=1)
    assert f"run {third} follows the job" in said
    desk.open()
    assert launched.wait(PATIENCE) == 0
    assert desk.trace == ["begin "]
    ((by, metadata),) = desk.metadata("works")
    assert (by, metadata["answer"]) == (third, 42)

    launched, _ = _again(desk, "works")
    assert launched.wait(PATIENCE) == 0
    assert desk.trace == ["begin ", "begin "]
    assert len(desk.metadata("works")) == 2


@pytest.mark.slow
def test_f3_a_launch_of_other_content_or_partition_leaves_the_job_alone_and_says_so(desk: Desk) -> None:
    launched, first = desk.launch("parts", "--partition", "x")
    terminate(launched)
    launched.wait(PATIENCE)
    desk.open()
    launched, second = _again(desk, "parts", "--partition", "y z")
    assert launched.wait(PATIENCE) == 0
    assert first not in desk.said(second)
    desk.project.write("gate.py", PAYLOAD.replace("42", "43"))
    launched, third = _again(desk, "parts", "--partition", "x")
    assert launched.wait(PATIENCE) == 0
    assert f"run {first} left behind, is not taken up: it has other content. To cancel it: " in desk.said(
        third
    )
    assert desk.trace == ["begin x", "begin y z", "begin x"]
    assert sorted(metadata["key"] for _, metadata in desk.metadata("parts")) == ["x", "y z"]
