"""A project of many scripts, and its run in a process of its own that is looked at from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from _lab import Lab

PATIENCE = 600.0
COMPONENT = """
type: dagster_slurm_components.SlurmScriptComponent
attributes:
  defaults: {resources: {mem: 16M, time: "00:30:00", cpus_per_task: 1}}
  scripts:
"""
RUN = """
import json
import sys
from pathlib import Path

import dagster as dg
from dagster._core.execution.api import execute_run_iterator
from dagster._daemon.monitoring.run_monitoring import RESUME_RUN_LOG_MESSAGE

from dagster_slurm_components import slurm_executor


def _job(executor):
    found = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    jobs = [dg.define_asset_job("scale", executor_def=executor)]
    return dg.Definitions.merge(found, dg.Definitions(jobs=jobs)).resolve_job_def("scale")


def threads():
    return _job(slurm_executor)


def processes():
    return _job(dg.multiprocess_executor)


def execute(instance, kind, config, parent=None, resume=None):
    job = dg.reconstructable(getattr(run, kind))
    if resume:
        known = instance.get_run_by_id(resume)
        instance.report_engine_event(RESUME_RUN_LOG_MESSAGE, known)
        events = execute_run_iterator(job, known, instance, resume_from_failure=True)
        return any(event.is_job_success for event in events)
    again = dg.ReexecutionOptions.from_failure(parent, instance) if parent else None
    with dg.execute_job(
        job, instance=instance, run_config={"execution": {"config": config}}, reexecution_options=again
    ) as result:
        return result.success


if __name__ == "__main__":
    from scaling import run

    with dg.DagsterInstance.get() as instance:
        sys.exit(0 if execute(instance, **json.loads(sys.argv[1])) else 1)
"""


def write_package(root: Path, name: str, run: str) -> Path:
    """Write a project without scripts, and the program that runs it; return the folder for its scripts."""
    package = root / "src" / name
    scripts = package / "defs" / "scripts"
    scripts.mkdir(parents=True, exist_ok=True)
    (root / "pyproject.toml").write_text(
        f'[tool.dg]\ndirectory_type = "project"\n\n[tool.dg.project]\nroot_module = "{name}"\n'
    )
    (package / "__init__.py").touch()
    (package / "defs" / "__init__.py").touch()
    (package / "run.py").write_text(run)
    return scripts


def write_project(root: Path, count: int, payload: str) -> None:
    """Write a project of so many scripts with one payload."""
    folder = write_package(root, "scaling", RUN)
    (root / "wait.sh").write_text(payload)
    scripts = (
        f"    - {{payload: {root / 'wait.sh'}, assets: [{{key: s{number}}}]}}\n" for number in range(count)
    )
    (folder / "defs.yaml").write_text(COMPONENT + "".join(scripts))


@dataclass
class Worker:
    """A run's process, and what it has logged.

    Attributes:
        process: The process.
        log: The file of its stdout and stderr.
        began: When it was started, by the monotonic clock.
    """

    process: subprocess.Popen[bytes]
    log: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.began

    def count(self, text: str) -> int:
        """Return how often it has logged a text."""
        return self.log.read_text(errors="replace").count(text)

    def wait_for(self, text: str, count: int) -> float:
        """Wait until it has logged a text so often; return its age then."""
        while self.count(text) < count:
            if self.process.poll() is not None or self.age > PATIENCE:
                tail = self.log.read_text(errors="replace")[-4000:]
                raise RuntimeError(f"{text!r} was logged {self.count(text)} of {count} times:\n{tail}")
            time.sleep(0.1)
        return self.age


def start(lab: Lab, name: str, **options: object) -> Worker:
    """Start a run of the project; options as for its ``execute``."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{lab.project / 'src'}:{os.environ.get('PYTHONPATH', '')}",
        "DAGSTER_SLURM_PROFILE": "staging",
        "DAGSTER_SLURM_AGENT": "off",
    }
    path = lab.project / f"{name}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(lab.project / "src" / "scaling" / "run.py"), json.dumps(options)],
            cwd=lab.project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return Worker(process, path)


@contextmanager
def stopped_partitions(lab: Lab) -> Iterator[None]:
    """Have no partition start jobs meanwhile: submission alone is looked at, not what the nodes do."""
    _partitions(lab, "DOWN")
    try:
        yield
    finally:
        _partitions(lab, "UP")


def _partitions(lab: Lab, state: str) -> None:
    for name in set(lab.cluster.run(["sinfo", "-h", "-o", "%R"]).stdout.split()):
        lab.cluster.run(["scontrol", "update", f"PartitionName={name}", f"State={state}"])


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    pids = [pid]
    for each in pids:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                pids += [int(child) for child in task.read_text().split()]
            except OSError:
                continue  # a thread that has just ended
    return pids


def pss_mib(pids: list[int]) -> float:
    """Return the memory of processes, what they share counted once, in MiB."""
    total = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


def cpu_s(pids: list[int]) -> float:
    """Return the CPU seconds of processes and of those that they waited for."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")
