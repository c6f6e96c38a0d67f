"""Steps that an executor delegates to processes of their own, as those of Docker, Kubernetes and ECS do."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg
import pytest
from ownership.delegate import FOLDER, process_of
from ownership.test_executor import RESUMING, SCRIPT, SCRIPTS, output, scripts
from ownership.work import SOON, Work, everywhere
from waiting import eventually

from dagster_slurm_components.hosts.satellite.processes import identify

STATUS = dg.DagsterRunStatus


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that tells which process executes a step."""
    folder = tmp_path / "delegated"
    folder.mkdir()
    monkeypatch.setenv(FOLDER, str(folder))
    yield folder
    for step in filter(lambda each: lives(folder, each), launched(folder)):
        with suppress(ProcessLookupError):
            os.killpg(process_of(folder, step)[0], signal.SIGKILL)


def lives(steps: Path, step: str) -> bool:
    pid, start = process_of(steps, step)
    return identify([pid]).get(pid) == start


def launched(steps: Path) -> Counter[str]:
    """How often a process was launched, by step."""
    file = steps / "launched"
    return Counter(file.read_text().split() if file.exists() else ())


LATER = """
import time


@dg.asset(deps=["a"])
def later():
    (ROOT / "later").touch()
    while not (ROOT / "go on").exists():
        time.sleep(0.05)
"""


def test_results_arrive_and_the_end_of_a_step_is_not_the_end_of_the_run(work: Work, steps: Path) -> None:
    """The process that had the run's only job is gone by the time the sensor looks."""
    said = work.file("say.sh", f'echo "out of $1"; . "{work.act}"')
    (work.project.defs / "defs.yaml").write_text(SCRIPTS + SCRIPT.format(payload=said, name="a", deps=""))
    work.assets(LATER)
    work.open()
    run = work.start(delegated=True)
    eventually((work.project.root / "later").exists, "the step after it runs", SOON)
    eventually(lambda: not lives(steps, "a"), "the process of a step ends", SOON)
    work.sensor().tick()
    assert work.status(run.id) is STATUS.STARTED, work.said(run.id)
    (work.project.root / "go on").touch()
    run.ends()
    assert launched(steps) == {"a": 1, "later": 1}
    assert work.trace("begin") == work.trace("end") == {"a": 1}
    assert output(work, run, "a") == "out of a\n"
    event = work.instance.get_latest_materialization_event(dg.AssetKey("a"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.run_id == run.id
    assert event.asset_materialization.metadata["job/id"].value == work.job()


def test_termination_cancels_the_jobs(work: Work, steps: Path) -> None:
    scripts(work, "a", "b")
    run = work.start(delegated=True)
    work.begins("a")
    work.begins("b")
    work.terminate(run)
    assert not work.trace("end")


@everywhere
def test_a_resumed_run_goes_on_with_living_steps_and_takes_up_the_jobs_of_dead_ones(
    work: Work, profile: str, steps: Path
) -> None:
    scripts(work, "a", "b")
    run = work.start(delegated=True)
    work.begins("a")
    work.begins("b")
    jobs = work.jobs()
    run.kill()
    os.kill(process_of(steps, "b")[0], signal.SIGKILL)
    eventually(lambda: not lives(steps, "b"), "the process of a step is gone", SOON)
    Path(work.instance.root_directory, "dagster.yaml").write_text(RESUMING)
    resumed = work.start(resume=run.id, delegated=True)
    (ledger,) = work.workdir.glob("runs/*/b/*/ledger")
    (job,) = (job for job in jobs if f"job_id={job}\n" in ledger.read_text())
    work.hears(run, f"Job {job} taken up again")
    work.open()
    eventually(lambda: resumed.process is not None and resumed.process.poll() is not None, "it ends", SOON)
    assert work.status(run.id) is STATUS.SUCCESS, work.said(run.id) + resumed.log
    assert launched(steps) == {"a": 1, "b": 2}
    assert work.jobs() == jobs
    assert work.trace("begin") == work.trace("end") == {"a": 1, "b": 1}
