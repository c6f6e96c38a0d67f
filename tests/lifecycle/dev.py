"""A real `dagster dev`, daemon and run retries included, in a project of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from ports import free_port
from project_fixture import BIN, Project
from waiting import PATIENCE, eventually

import slurm_testcluster as slurm
from dagster_slurm_components.jobs.lease import parse_ledger, read_lease
from dagster_slurm_components.pipes.reexecute import find_run, run_to_take_up
from dagster_slurm_components.pipes.runs import call_off_retry

DAGSTER_YAML = """
run_monitoring: {enabled: true, poll_interval_seconds: 5}
run_retries: {enabled: true, max_retries: 3}
# Without the queue, whose daemon starts one run after another.
run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}
telemetry: {enabled: false}
nux: {enabled: false}
"""


@dataclass(frozen=True)
class Launch:
    """An attempt that a run, or one that it re-executes, has made: what its run directory tells."""

    run_dir: str
    step: str
    partition: str | None
    job_name: str


@dataclass
class Dev:
    """A project and its `dg dev`."""

    project: Project
    profile: str
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: str = ""
    workspace: Path | None = None
    """The folder of a workspace of several projects, which are its locations."""
    _instance: dg.DagsterInstance | None = None

    @property
    def root(self) -> Path:
        """Where `dg dev` is started."""
        return self.workspace or self.project.root

    @property
    def home(self) -> Path:
        return self.root / "dagster home"

    @property
    def gates(self) -> Path:
        """Payloads wait for files that carry their job's name in here."""
        return self.root / "gates"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """Those of a terminal in the project."""
        # Where Python may not keep its bytecode, each of Dagster's processes compiles everything anew.
        inherited = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {
            **inherited,
            **self.environment,
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_SLURM_PROFILE": self.profile,
            "GATES": str(self.gates),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": ":".join(map(str, [*self.root.glob("**/src"), Path(__file__).parents[2]])),
        }

    @classmethod
    @contextmanager
    def running(
        cls, project: Project, profile: str, cluster: slurm.Cluster | None = None, **options: Any
    ) -> Iterator[Dev]:
        """Give one that answers; it ends with the context, and its jobs on a cluster that is named."""
        made = cls(project, profile, **options)
        try:
            made.start()
            yield made
        finally:
            made.stop()
            if made._instance is not None:
                made._instance.dispose()
            left = cluster.run(["squeue", "-h", "-o", "%i %Z"]).stdout.splitlines() if cluster else []
            mine = [line.split(" ", 1)[0] for line in left if str(made.root) in line]
            if cluster and mine:
                cluster.run(["scancel", *mine])

    def start(self) -> None:
        """Start `dg dev` and wait until it answers."""
        self.home.mkdir(exist_ok=True)
        self.gates.mkdir(exist_ok=True)
        (self.home / "dagster.yaml").write_text(DAGSTER_YAML + self.settings)
        self.port = free_port()
        active = ["--use-active-venv"] if self.workspace else []
        with (self.root / "dev.log").open("a") as log:
            # Not from a shell with `&`: that ignores SIGINT, and Dagster then ignores SIGTERM too.
            self.process = subprocess.Popen(
                [str(BIN / "dg"), "dev", "--port", str(self.port), "--host", "127.0.0.1", *active],
                cwd=self.root,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        eventually(self.location, "dg dev starts")

    def stop(self, number: int = signal.SIGINT) -> None:
        """End `dg dev` and whatever it left behind."""
        if self.process is None:
            return
        group = self.process.pid
        with suppress(ProcessLookupError):
            os.killpg(group, number)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.process = None

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            raise OSError(f"{error}: {error.read().decode()}") from error
        assert "errors" not in found, found
        data: dict[str, Any] = found["data"]
        return data

    def location(self) -> str | None:
        """Return the name of the project's code location, once it is loaded."""
        find = "{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name } } } } }"
        try:
            nodes = self.ask(find)["repositoriesOrError"].get("nodes")
        except OSError:
            return None
        names = [node["location"]["name"] for node in nodes or ()]
        return self.project.root.name if self.project.root.name in names else None

    def launch(
        self, *assets: str, config: Mapping[str, object] | None = None, tags: Mapping[str, str] | None = None
    ) -> str:
        """Launch a run of assets; return its id."""
        mutation = """
        mutation ($location: String!, $assets: [AssetKeyInput!]!, $config: RunConfigData!, $tags: [ExecutionTag!]!) {
          launchRun(executionParams: {
            selector: {repositoryLocationName: $location, repositoryName: "__repository__",
                       jobName: "__ASSET_JOB", assetSelection: $assets}
            runConfigData: $config
            executionMetadata: {tags: $tags}
          }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
        }
        """
        found = self.ask(
            mutation,
            location=self.location(),
            assets=[{"path": asset.split("/")} for asset in assets],
            config=config or {},
            tags=[{"key": key, "value": value} for key, value in (tags or {}).items()],
        )
        return str(found["launchRun"]["run"]["runId"])

    def launch_all(
        self,
        runs: Sequence[Sequence[str]],
        *,
        in_process: Sequence[bool],
        tags: Sequence[Mapping[str, str]],
    ) -> list[str]:
        """Launch runs of assets side by side; the steps of each run side by side or in its worker's process."""
        here = {"execution": {"config": {"in_process": {}}}}
        apart = {"execution": {"config": {"multiprocess": {"max_concurrent": 100}}}}
        configs = [here if flag else apart for flag in in_process]
        with ThreadPoolExecutor(max(1, len(runs))) as pool:
            return list(pool.map(lambda a, c, t: self.launch(*a, config=c, tags=t), runs, configs, tags))

    def attach(self, run_id: str) -> str:
        """Have the webserver retry a run that nobody follows, as the UI's button does; return the retry."""
        mutation = """
        mutation ($parent: String!) {
          launchRunReexecution(reexecutionParams: {parentRunId: $parent, strategy: FROM_FAILURE}) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
          }
        }
        """
        with self.instance() as instance:
            run = run_to_take_up(instance, find_run(instance, run_id))
            made = self.ask(mutation, parent=run.run_id)["launchRunReexecution"]
            call_off_retry(instance, run)
        return str(made["run"]["runId"])

    def dg_slurm(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run the `dg-slurm` program as in a terminal of the project, with Dagster's folder known."""
        return subprocess.run(
            [str(BIN / "dg-slurm"), *args],
            cwd=self.project.root,
            env={**self.variables, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def terminate(self, run_id: str) -> None:
        """Terminate a run as the UI's button does."""
        mutation = """
        mutation ($id: String!) { terminateRun(runId: $id) { __typename } }
        """
        assert self.ask(mutation, id=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"

    def open(self, launch: Launch, *gates: str) -> None:
        """Open gates at which the payload of a launch waits; by default all."""
        for gate in gates or ("report", "end"):
            (self.gates / f"{launch.job_name}.{gate}").touch()

    # Dagster's storage, read directly: it is there while dg dev is not.

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Give Dagster's instance, which stays open until the end: to open one costs more than most questions to it."""
        if self._instance is None:
            self._instance = dg.DagsterInstance.from_config(str(self.home))
        yield self._instance

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        with self.instance() as instance:
            run = instance.get_run_by_id(run_id)
            assert run is not None
            return run.status

    def launches(self, run_id: str) -> list[Launch]:
        """Return the attempts that a run and those that it re-executes have made, in order."""
        with self.instance() as instance:
            run = instance.get_run_by_id(run_id)
        root = (run.root_run_id if run else None) or run_id
        return launches(self.workdir, root)

    @property
    def workdir(self) -> Path:
        """The profile's working folder: on this machine, whatever leads there."""
        return self.project.root / ("cluster work" if self.profile == "staging" else ".dagster-slurm")

    def said(self, run_id: str) -> str:
        with self.instance() as instance:
            return "\n".join(f"{entry.user_message}\n{entry.message}" for entry in instance.all_logs(run_id))

    def hears(self, run_id: str, text: str) -> None:
        """Wait until a run's log holds a text."""
        eventually(lambda: text in self.said(run_id), f"{text!r} in the log of {run_id}")

    def ends(self, run_id: str, status: dg.DagsterRunStatus) -> None:
        eventually(lambda: self._ended(run_id), f"run {run_id} ends")
        assert self.status(run_id) is status, self.said(run_id)

    def _ended(self, run_id: str) -> bool:
        with self.instance() as instance:
            run = instance.get_run_by_id(run_id)
            return run is not None and run.is_finished

    def retry_of(self, run_id: str) -> str:
        """Wait for the run that the daemon starts in a run's place; return its id."""

        def child() -> str | None:
            with self.instance() as instance:
                found = instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run_id}))
                return found[0].run_id if found else None

        return eventually(child, f"{run_id} is retried")

    def materializations(self, asset: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the runs that materialized an asset, with the metadata, the newest first."""
        with self.instance() as instance:
            result = instance.fetch_materializations(dg.AssetKey(asset), limit=100)
            return [
                (entry.run_id, {k: v.value for k, v in entry.asset_materialization.metadata.items()})
                for entry in result.records
                if entry.asset_materialization
            ]


def launches(workdir: Path, root: str) -> list[Launch]:
    """Return the attempts of a first run and all that re-execute it, the oldest first."""
    found = []
    for file in workdir.glob(f"runs/{root}/**/lease"):
        lease = read_lease(file.read_bytes())
        step, *between, _ = file.parent.relative_to(workdir / "runs" / root).parts
        ledger = parse_ledger(file.with_name("ledger").read_bytes())
        partition = between[0] if between else None
        made = file.with_name("job.sh").stat().st_mtime
        name = f"{step}-{ledger.token}"
        found.append((made, Launch(str(file.parent), lease.note.step, partition, name)))
    return [launch for _, launch in sorted(found, key=lambda each: each[0])]
