"""Executes one run, or the re-execution of one: in this process, or as a run worker that a test can kill.

As a program: ``worker.py FOLDER PACKAGE HOME OPTIONS``, where OPTIONS is a JSON object, the arguments of ``execute``.
In the project's folder the file ``down`` cuts the host off (what it was asked is written to ``asked``), and the file
``confuse`` makes it fail once, in a way that nobody expects, when a job's status is read.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.execution.api import execute_run_iterator
from dagster._daemon.monitoring.run_monitoring import RESUME_RUN_LOG_MESSAGE

from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts.local import InProcessHost

IN_PROCESS = {"in_process": {}}


def execute(
    folder: Path,
    package: str,
    instance: dg.DagsterInstance,
    *,
    name: str,
    select: Sequence[str] = (),
    parent: str | None = None,
    whole: bool = False,
    tags: Mapping[str, str] | None = None,
    executor: Mapping[str, Any] | None = None,
    resume: str | None = None,
    delegated: bool = False,
) -> bool:
    """Execute a run of the project's assets; return whether it succeeded.

    Args:
        folder: The project.
        package: Its package.
        instance: Dagster's instance.
        name: A tag by which the run is found.
        select: The assets; by default all.
        parent: The run to re-execute.
        whole: Re-execute all steps, and not only from the failed ones.
        tags: More tags.
        executor: The configuration of `slurm_executor`, which is to execute it; by default all in this process.
        resume: The run to go on with, as Dagster's run monitoring has a new worker do it.
        delegated: Have each step executed by a process of its own, which is no child of this one.
    """
    source = str(folder / "src")
    if source not in sys.path:
        sys.path.insert(0, source)
    jobs = importlib.import_module(f"{package}.job")
    here = {"execution": {"config": IN_PROCESS if executor is None else dict(executor)}}
    made, config = (jobs.job if executor is None else jobs.threads), here
    if delegated:
        made, config = jobs.delegated, {}
    job = dg.reconstructable(made)
    if resume is not None:
        run = instance.get_run_by_id(resume)
        assert run is not None
        instance.report_engine_event(RESUME_RUN_LOG_MESSAGE, run)
        return any(
            event.is_job_success
            for event in execute_run_iterator(job, run, instance, resume_from_failure=True)
        )
    options = None
    if parent is not None:
        whole_run = dg.ReexecutionOptions(parent_run_id=parent)
        options = whole_run if whole else dg.ReexecutionOptions.from_failure(parent, instance)
    with dg.execute_job(
        job,
        instance=instance,
        run_config=config,
        tags={"test/name": name, **(tags or {})},
        reexecution_options=options,
        asset_selection=[dg.AssetKey(key) for key in select] or None,
    ) as result:
        return result.success


def fail_as_told(folder: Path) -> None:
    """Have this machine, as a host, fail as the files in a folder say."""
    answer = InProcessHost.call

    def call(
        self: InProcessHost,
        op: str,
        params: Mapping[str, Any] | None = None,
        blob: bytes = b"",
        *,
        timeout: float = 60.0,
    ) -> Any:
        if (folder / "down").exists():
            with (folder / "asked").open("a") as asked:
                asked.write(f"{op}\n")
            raise HostUnreachableError("the line is cut", where=self.name)
        if (folder / "confuse").exists() and "/status" in json.dumps(params or {}):
            (folder / "confuse").unlink()
            raise RuntimeError("nobody expects this")
        return answer(self, op, params, blob, timeout=timeout)

    InProcessHost.call = call  # type: ignore[method-assign]


def main() -> None:
    """Be a run worker."""
    folder, package, home, options = sys.argv[1:]
    fail_as_told(Path(folder))
    with dg.DagsterInstance.from_config(home) as instance:
        execute(Path(folder), package, instance, **json.loads(options))


if __name__ == "__main__":
    main()
