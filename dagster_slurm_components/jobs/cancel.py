"""Cancelling: asks for the end of exactly one job, again and again until the host and the scheduler have heard it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.schedulers import Scheduler

Result = TypeVar("Result")

_PAUSE = 1.0


def patiently(
    ask: Callable[[], Result],
    *,
    patience: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Ask a host for something that may be asked twice, until it answers.

    Args:
        ask: What is asked.
        patience: Seconds to go on trying while nobody answers.
        clock: A monotonic clock, in seconds.
        sleep: Waits; the tests' clock.

    Raises:
        HostUnreachableError: No answer in all that time.
    """
    deadline = clock() + patience
    while True:
        try:
            return ask()
        except HostUnreachableError:
            if clock() + _PAUSE > deadline:
                raise
            sleep(_PAUSE)


def cancel(
    satellite: Satellite,
    scheduler: Scheduler,
    handle: JobHandle,
    *,
    patience: float,
    force: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Cancel a job; its end is seen by whoever watches it.

    Args:
        satellite: The host.
        scheduler: Who runs the job.
        handle: The job.
        patience: Seconds to go on trying while the host or the scheduler does not answer.
        force: It was asked before and did not end.
        clock: A monotonic clock, in seconds.
        sleep: Waits; the tests' clock.

    Raises:
        HostUnreachableError: No answer in all that time; the job may go on.
    """
    patiently(
        lambda: scheduler.cancel(satellite, handle, force=force), patience=patience, clock=clock, sleep=sleep
    )
