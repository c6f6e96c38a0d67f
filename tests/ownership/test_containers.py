"""Run workers in PID namespaces of their own, with this machine's name and boot: containers."""

from __future__ import annotations

import dagster as dg
import pytest
from ownership.test_executor import scripts
from ownership.work import SLURM, Work

STATUS = dg.DagsterRunStatus


@pytest.mark.parametrize("profile", [SLURM])
def test_a_worker_in_a_container_is_not_judged_from_outside_and_its_job_is_taken_up(
    work: Work, profile: str, unshare: list[str]
) -> None:
    scripts(work, "a")
    run = work.start(below=unshare)
    work.begins("a")
    job, sensor = work.job(), work.sensor()
    sensor.tick()
    assert work.status(run.id) is STATUS.STARTED, "nothing is known of its process here"
    outside = work.start(parent=run.id, whole=True)
    outside.ends(STATUS.FAILURE)
    assert f"run {run.id} follows the job" in work.said(outside.id)
    assert work.live() == {job}

    run.kill()
    sensor.tick()
    assert work.status(run.id) is STATUS.STARTED, "nor of its end"
    work.instance.report_run_failed(work.run(run.id))  # as Dagster's run monitoring does
    again = work.start(parent=run.id, below=unshare)
    work.hears(again, f"Job {job} taken up again")
    sensor.tick()
    work.open()
    again.ends()
    assert work.jobs() == [job]
    assert work.trace("begin") == work.trace("end") == {"a": 1}
    assert sensor.notes == []
