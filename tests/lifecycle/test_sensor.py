"""Everything of Dagster is killed at once; the sensor of the next `dg dev` finds the run, and its retry the job."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress

import dagster as dg
import pytest
from lifecycle.dev import Dev, eventually

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

WITH_SENSOR = True


def test_a_run_that_nobody_notices_is_healed_and_its_job_taken_up(dev: Dev) -> None:
    run_id = dev.launch("waits")
    dev.hears(run_id, "waiting at the gate")
    known = dev.history(run_id)
    pids = [known.launches[-1].supervisor.pid, *known.workers["waits"]]
    dev.stop(signal.SIGKILL)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert dev.status(run_id) is dg.DagsterRunStatus.STARTED
    dev.start()
    eventually(lambda: dev.status(run_id) is dg.DagsterRunStatus.FAILURE, "the sensor finds the run")
    retry = dev.retry_of(run_id)
    dev.hears(retry, "taken up again")
    assert "waiting at the gate" not in dev.said(retry)
    dev.open_gate(run_id)
    dev.ends(retry, dg.DagsterRunStatus.SUCCESS)
    (job,) = set(re.findall(r"Job (\d+) (?:submitted|taken up)", dev.said(run_id) + dev.said(retry)))
    found = [run for run, data in dev.materializations("waits") if data["job/id"] == job]
    assert found == [retry]
