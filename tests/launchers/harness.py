"""Run a launcher's plan for real, without Dagster: as a plain process, or as a job of a real Slurm.

Builds on the test kit that packages with launchers of their own use.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from waiting import PATIENCE

from dagster_slurm_components.environments.base import Activation, ActivationStep
from dagster_slurm_components.jobs.bundle import sampler
from dagster_slurm_components.jobs.usage import parse_usage, usage_file
from dagster_slurm_components.launchers.base import LaunchContext, payload_argv
from dagster_slurm_components.launchers.plans import plan
from dagster_slurm_components.launchers.testing import PAYLOAD, make_run_directory, outside_slurm, read_status
from dagster_slurm_components.slurm.header import render_header
from dagster_slurm_components.spec.launchers import LauncherSpec
from dagster_slurm_components.spec.resources import Resources
from slurm_testcluster import Cluster

PIPES = {"DAGSTER_PIPES_CONTEXT": "context", "DAGSTER_PIPES_MESSAGES": "messages"}


def wait_until(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> float:
    """Wait until a condition holds; return the seconds it took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > timeout:
            raise AssertionError(f"{what} did not happen within {timeout:g} s")
        time.sleep(0.05)
    return time.monotonic() - begun


def processes_of(folder: Path) -> dict[int, str]:
    """Return the command line of every process that belongs to a run directory, by process id."""
    wanted = f"DAGSTER_SLURM_RUN_DIR={folder}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return {pid: line for pid, line in found.items() if line}


def listening(pids: Iterable[int]) -> set[str]:
    """Return the addresses at which processes listen, as the kernel writes them: `0100007F`, `00000000`."""
    inodes, found = set(), set()
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    inodes.add(os.readlink(link))
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in inodes:
                found.add(local.partition(":")[0])
    return found


@dataclass
class Run:
    """One run directory, and what has become of it."""

    folder: Path

    def read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def status(self) -> dict[str, str]:
        return read_status(self.folder)

    @property
    def ended(self) -> bool:
        return "exit" in self.status

    @property
    def exit_code(self) -> int:
        return int(self.status["exit"])

    @property
    def stdout(self) -> str:
        return self.read("stdout.log")

    @property
    def stderr(self) -> str:
        return self.read("stderr.log")

    def processes(self) -> dict[int, str]:
        return processes_of(self.folder)

    def kill(self, pattern: str, **variables: str) -> None:
        """Kill the newest process whose command line matches and whose environment has these variables."""
        wanted = {f"{name}={value}".encode() for name, value in variables.items()}
        found = [
            pid
            for pid, line in self.processes().items()
            if re.search(pattern, line)
            and wanted <= set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
        ]
        assert found, f"no process like {pattern} with {variables} among {self.processes()}"
        os.kill(max(found), signal.SIGKILL)

    @property
    def failed_rank(self) -> tuple[str, str, str]:
        """Return who failed, on which node, and how."""
        who, node, code = self.status.get("failed_rank", "- - -").split(" ")
        return who, node, code

    def wait_for(self, text: str, name: str = "stdout.log", timeout: float = PATIENCE) -> None:
        try:
            wait_until(lambda: text in self.read(name) or self.ended, f"{text!r} in {name}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report()}") from None
        assert text in self.read(name), self.report()

    def wait_ended(self) -> None:
        try:
            wait_until(lambda: self.ended, "the end of the job")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report()}") from None

    def report(self) -> str:
        ranks = sorted((self.folder / "ranks").glob("*")) if (self.folder / "ranks").exists() else []
        parts = ["status", "stdout.log", "stderr.log", *(f"ranks/{p.name}" for p in ranks if p.is_file())]
        return "\n".join(f"--- {name}\n{self.read(name)[-4000:]}" for name in parts)


def prepare(
    folder: Path,
    launcher: LauncherSpec,
    payload: str | Sequence[str],
    *,
    args: Sequence[str] = (),
    resources: Resources | None = None,
    scheduler: Literal["process", "slurm"] = "process",
    prefix: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Run:
    """Make a run directory.

    Args:
        folder: Where; must not exist.
        launcher: The launcher under test.
        payload: The text of a Python payload, or a command.
        args: The payload's arguments.
        resources: What the job asks for.
        scheduler: ``process`` or ``slurm``.
        prefix: A virtual environment for the payload.
        env: More environment variables.
    """
    resources = resources or Resources()
    text, command = (payload, None) if isinstance(payload, str) else (None, payload)
    argv = payload_argv(PAYLOAD if text is not None else None, command, args)
    made = plan(launcher, argv, LaunchContext(resources, scheduler))
    options = {
        "output": str(folder / "stdout.log").replace("%", "%%"),
        "error": str(folder / "stderr.log").replace("%", "%%"),
        **made.sbatch,
        **dict(resources.sbatch_options()),
    }
    steps = (ActivationStep("prefix", (str(prefix),)),) if prefix else ()
    make_run_directory(folder, made, text, {**PIPES, **(env or {})})
    (folder / "activate.args").write_bytes(Activation(steps).arguments())
    for name, content in sampler().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    job = folder / "job.sh"
    job.write_text(render_header(list(options.items())) + job.read_text())
    return Run(folder)


def run_here(run: Run, timeout: float = PATIENCE) -> Run:
    """Run a run directory as a plain process, to its end."""
    process = start_here(run)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"not ended within {timeout:g} s\n{run.report()}") from None
    return run


def start_here(run: Run, under: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start a run directory as a plain process; ``under`` begins the command line of a parent that starts it."""
    out, err = (run.folder / "stdout.log").open("wb"), (run.folder / "stderr.log").open("wb")
    with out, err:
        argv = [*under, "bash", str(run.folder / "job.sh"), str(run.folder)]
        return subprocess.Popen(argv, stdout=out, stderr=err, env=outside_slurm(), start_new_session=True)


def slurm(cluster: Cluster, *argv: str) -> str:
    """Run a Slurm program and return its output."""
    completed = subprocess.run(
        argv,
        env={**outside_slurm(), "SLURM_CONF": str(cluster.slurm_conf)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert completed.returncode == 0, f"{argv}: {completed.stderr}"
    return completed.stdout


def submit(cluster: Cluster, run: Run) -> str:
    """Submit a run directory; return the job's number. What an earlier start printed stays, as always."""
    job_script = str(run.folder / "job.sh")
    return slurm(cluster, "sbatch", "--parsable", "--open-mode=append", job_script, str(run.folder)).strip()


def nodes_of(cluster: Cluster, run: Run) -> list[str]:
    """Return the names of the nodes that a run's job has."""
    return slurm(cluster, "scontrol", "show", "hostnames", run.status["nodes"]).split()


def sampled(run: Run) -> list[str]:
    """Return the nodes that wrote down what they used, each in the file of its number."""
    files = [run.folder / usage_file(number) for number in range(len(list((run.folder / "usage").iterdir())))]
    found = [parse_usage(file.read_bytes()) for file in files]
    return [usage.node for usage in found if usage is not None and usage.samples]


def wait_gone(cluster: Cluster, job: str, timeout: float = PATIENCE) -> None:
    """Wait until Slurm has nothing left of a job."""
    listed = ("squeue", "--noheader", "--me", "--jobs", f"{job},{job}")  # twice: no error when it is unknown
    wait_until(lambda: not slurm(cluster, *listed).strip(), f"the end of job {job}", timeout)


@contextmanager
def two_node_jobs(
    cluster: Cluster, folder: Path, prefix: Path, payload: str, default: LauncherSpec, *, mem: str
) -> Iterator[Callable[..., tuple[Run, str]]]:
    """Submit jobs of one payload, each on two nodes; whatever is left of them at the end is cancelled.

    Their time limit is far off: what ends within PATIENCE was ended by its launcher.

    Args:
        cluster: The cluster.
        folder: Where the run directories are made; their names are hostile.
        prefix: The virtual environment of the payload.
        payload: Its text; its argument is the mode that a test asks for.
        default: The launcher of jobs that name none.
        mem: Memory for each node.
    """
    jobs: list[str] = []

    def start(mode: str, launcher: LauncherSpec | None = None, **env: str) -> tuple[Run, str]:
        run = prepare(
            folder / f"run {len(jobs)} 'a' $(b) ü",
            launcher or default,
            payload,
            args=[mode],
            resources=Resources(nodes=2, cpus_per_task=2, mem=mem, time="01:00:00"),
            scheduler="slurm",
            prefix=prefix,
            env=env,
        )
        jobs.append(submit(cluster, run))
        return run, jobs[-1]

    try:
        yield start
    finally:
        for number in jobs:
            slurm(cluster, "scancel", number)
