"""Runs of a Dagster in memory, and their workers, dead and alive."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.pipes.records import PROFILE, WORKER, written


@pytest.fixture
def memory_instance() -> Iterator[dg.DagsterInstance]:
    """One in memory: it is asked as any other, and made faster."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(scope="module")
def dead() -> Owner:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner.of("", process.pid)
    process.communicate(b"\n")
    return owner


def alive() -> Owner:
    return Owner.of("", os.getpid())


def make(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, owner: Owner | None = None, **more: object
) -> dg.DagsterRun:
    """Make a run, whose worker is that process."""
    run = create_run_for_test(instance, job_name="a", status=status, **more)  # type: ignore[arg-type]
    if owner is not None:
        tags = {PROFILE: "local", WORKER: written(replace(owner, run_id=run.run_id))}
        instance.add_run_tags(run.run_id, tags)
    return read(instance, run)


def read(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def child_of(run: dg.DagsterRun) -> dict[str, object]:
    return {"parent_run_id": run.run_id, "root_run_id": run.run_id}


def age(instance: dg.DagsterInstance, run: dg.DagsterRun, seconds: float) -> None:
    """Let a run have failed so many seconds ago."""
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_FAILURE.value, run.job_name)
    instance.handle_run_event(run.run_id, event, datetime.now(timezone.utc) - timedelta(seconds=seconds))
