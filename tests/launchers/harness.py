"""Run a launcher's plan for real, without Dagster: as a plain process, or as a job of a real Slurm.

This is what a package with a launcher of its own needs for its tests, too.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

from dagster_slurm_components.cluster import Cluster
from dagster_slurm_components.environments.base import Activation, ActivationStep
from dagster_slurm_components.jobs.bundle import bundle
from dagster_slurm_components.jobs.model import JobIdentity, JobSpec, PayloadFile
from dagster_slurm_components.launchers.payload import payload_argv
from dagster_slurm_components.launchers.registry import LaunchContext, plan
from dagster_slurm_components.slurm.header import render_header
from dagster_slurm_components.spec.launchers import LauncherSpec
from dagster_slurm_components.spec.resources import Resources

PIPES = {"DAGSTER_PIPES_CONTEXT": "context", "DAGSTER_PIPES_MESSAGES": "messages"}


def wait_until(condition: Callable[[], object], what: str, timeout: float = 60.0) -> float:
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


@dataclass
class Run:
    """One run directory, and what has become of it."""

    folder: Path

    def read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def status(self) -> dict[str, str]:
        lines = [line for line in self.read("status").splitlines() if "=" in line]
        return dict(line.split("=", 1) for line in lines)

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

    def wait_for(self, text: str, name: str = "stdout.log", timeout: float = 60) -> None:
        try:
            wait_until(lambda: text in self.read(name) or self.ended, f"{text!r} in {name}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report()}") from None
        assert text in self.read(name), self.report()

    def wait_ended(self, timeout: float = 90) -> float:
        try:
            return wait_until(lambda: self.ended, "the end of the job", timeout)
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
    scheduler: str = "process",
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
    file, command = ("payload.py", None) if isinstance(payload, str) else (None, payload)
    made = plan(launcher, payload_argv(file, command, args), LaunchContext(resources, scheduler))
    steps = (ActivationStep("prefix", (str(prefix),)),) if prefix else ()
    spec = JobSpec(
        identity=JobIdentity("run", "step"),
        launch=made,
        activation=Activation(steps=steps),
        sbatch=(),
        env={**PIPES, **made.env, **(env or {})},
        context=b"{}",
        files=(PayloadFile(PurePosixPath("payload.py"), payload.encode()),)
        if isinstance(payload, str)
        else (),
    )
    options = {
        "output": str(folder / "stdout.log").replace("%", "%%"),
        "error": str(folder / "stderr.log").replace("%", "%%"),
        **made.sbatch,
        **dict(resources.sbatch_options()),
    }
    folder.mkdir(parents=True)
    with tarfile.open(
        fileobj=BytesIO(bundle(spec, render_header(list(options.items())))), mode="r:gz"
    ) as archive:
        archive.extractall(folder)
    return Run(folder)


def run_here(run: Run, timeout: float = 60) -> Run:
    """Run a run directory as a plain process, to its end."""
    process = start_here(run)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"not ended within {timeout:g} s\n{run.report()}") from None
    return run


def start_here(run: Run) -> subprocess.Popen[bytes]:
    """Start a run directory as a plain process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "DAGSTER"))}
    out, err = (run.folder / "stdout.log").open("wb"), (run.folder / "stderr.log").open("wb")
    with out, err:
        argv = ["bash", str(run.folder / "job.sh"), str(run.folder)]
        return subprocess.Popen(argv, stdout=out, stderr=err, env=clean, start_new_session=True)


def slurm(cluster: Cluster, *argv: str) -> str:
    """Run a Slurm program and return its output."""
    foreign = ("SLURM", "SBATCH", "DAGSTER")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    completed = subprocess.run(
        argv,
        env={**clean, "SLURM_CONF": str(cluster.slurm_conf)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert completed.returncode == 0, f"{argv}: {completed.stderr}"
    return completed.stdout


def submit(cluster: Cluster, run: Run) -> str:
    """Submit a run directory; return the job's number."""
    return slurm(cluster, "sbatch", "--parsable", str(run.folder / "job.sh"), str(run.folder)).strip()


def nodes_of(cluster: Cluster, run: Run) -> list[str]:
    """Return the names of the nodes that a run's job has."""
    return slurm(cluster, "scontrol", "show", "hostnames", run.status["nodes"]).split()


def wait_gone(cluster: Cluster, job: str, timeout: float = 60) -> None:
    """Wait until Slurm has nothing left of a job."""
    listed = ("squeue", "--noheader", "--me", "--jobs", f"{job},{job}")  # twice: no error when it is unknown
    wait_until(lambda: not slurm(cluster, *listed).strip(), f"the end of job {job}", timeout)
