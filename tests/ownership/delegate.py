"""An executor that has each step executed by a process of its own, which no run worker is the parent of.

What those of Docker, Kubernetes and ECS do with containers (``StepDelegatingExecutor``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.init import InitExecutorContext
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)

from dagster_slurm_components.hosts.satellite.processes import identify

FOLDER = "DELEGATED"
"""The variable with the folder in which it is written down which process executes a step."""


def process_of(folder: Path, step: str) -> tuple[int, str]:
    """Return the process that was launched for a step last: its number, and its start."""
    pid, start = json.loads((folder / step).read_text())
    return pid, start


class ProcessStepHandler(StepHandler):
    """Launches processes, and knows them by files alone, so that a resumed run worker does too."""

    @property
    def name(self) -> str:
        return "processes"

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        file = _file(step_handler_context)
        with file.with_suffix(".log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *step_handler_context.execute_step_args.get_command_args()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        file.write_text(json.dumps([process.pid, identify([process.pid])[process.pid]]))
        with file.with_name("launched").open("a") as launched:
            launched.write(f"{file.name}\n")
        return iter(())

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        file = _file(step_handler_context)
        pid, start = process_of(file.parent, file.name)
        lives = identify([pid]).get(pid) == start
        return CheckStepHealthResult.healthy() if lives else CheckStepHealthResult.unhealthy("it is gone")

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        file = _file(step_handler_context)
        with suppress(ProcessLookupError):
            os.kill(process_of(file.parent, file.name)[0], signal.SIGTERM)
        return iter(())


def _file(context: StepHandlerContext) -> Path:
    (step,) = context.execute_step_args.step_keys_to_execute or ()
    return Path(os.environ[FOLDER], step)


@dg.executor(name="delegating", requirements=multiple_process_executor_requirements())
def delegating_executor(init_context: InitExecutorContext) -> StepDelegatingExecutor:
    """Execute each step by a process of its own."""
    return StepDelegatingExecutor(
        ProcessStepHandler(),
        retries=RetryMode.ENABLED,
        sleep_seconds=0.2,
        check_step_health_interval_seconds=1,
    )
