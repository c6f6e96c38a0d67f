"""What Slurm does to a job, and what the step makes of it. Each job waits for its test, never for a clock."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import pytest
from project_fixture import Project, failure_text
from waiting import eventually

import slurm_testcluster as slurm
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.jobs.reconcile import Patience
from dagster_slurm_components.jobs.schedulers import SlurmScheduler

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

MARKS = """
    import os, sys, time
    from pathlib import Path
    from dagster_pipes import open_dagster_pipes

    marks = Path(os.environ["MARKS"])
    restart = os.environ["DAGSTER_SLURM_RESTART_COUNT"]
    with open_dagster_pipes() as pipes:
        here = marks / f"began.{Path(os.environ['DAGSTER_SLURM_RUN_DIR']).name}.{restart}"
        here.with_suffix(".new").write_text(os.environ["SLURM_JOB_ID"])
        here.with_suffix(".new").rename(here)
        while not (marks / "gate").exists():
            time.sleep(0.05)
        pipes.report_asset_materialization(metadata={"restart": int(restart)})
"""


@pytest.fixture
def marks(project: Project, cluster: slurm.Cluster) -> Path:
    """Where payloads say that they have begun, and wait for the file `gate`."""
    project.staging(cluster)
    folder = project.root / "marks"
    folder.mkdir()
    project.write("marks.py", MARKS)
    return folder


def scripts(project: Project, marks: Path, more: str = "", resources: str = 'time: "00:10:00"') -> None:
    project.scripts(
        f"scripts:\n  - payload: marks.py\n    env: {{MARKS: '{marks}'}}\n    assets: [{{key: marked}}]\n"
        f"    resources: {{{resources}}}\n{more}"
    )


def began(marks: Path, attempt: int = 0, restart: int = 0) -> str:
    """Wait for a start of the payload; return its job."""
    file = marks / f"began.{attempt}.{restart}"
    return eventually(lambda: file.exists() and file.read_text(), f"{file.name}")


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Do something while a run goes on; its error is the test's."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            work()
        except (AssertionError, OSError, DagsterSlurmError) as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    if errors:
        raise errors[0]


def test_a_requeued_job_is_still_the_same(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, marks: Path
) -> None:
    scripts(project, marks)

    def act() -> None:
        job = began(marks)
        cluster.run(["scontrol", "requeue", job])
        assert began(marks, restart=1) == job
        (marks / "gate").touch()

    with meanwhile(act):
        result = project.run("staging", instance=instance)
    assert result.success, failure_text(result)
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["restart"].value == 1


@pytest.mark.smoke
@pytest.mark.parametrize("pending", [False, True], ids=["running", "pending"])
def test_an_external_scancel_fails_the_step_and_is_told(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, marks: Path, pending: bool
) -> None:
    scripts(project, marks, resources="begin: now+1hour" if pending else 'time: "00:10:00"')

    def act() -> None:
        if pending:
            ledgers = project.root / "cluster work" / "runs"
            job = eventually(lambda: _job_in(ledgers), "a ledger")
        else:
            job = began(marks)
        cluster.run(["scancel", job])

    with meanwhile(act):
        result = project.run("staging", instance=instance)
    assert not result.success
    assert "was cancelled" in failure_text(result)
    assert len(list(_attempts(project))) == 1


def _attempts(project: Project) -> Iterator[Path]:
    for ledger in (project.root / "cluster work" / "runs").rglob("ledger"):
        yield ledger.parent


def _job_in(folder: Path) -> str | None:
    for ledger in folder.rglob("ledger"):
        lines = dict(line.split("=", 1) for line in ledger.read_text().splitlines())
        if "submitted" in lines:
            return lines["job_id"]
    return None


def test_a_job_that_can_never_start_is_told_and_cancelled(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, marks: Path
) -> None:
    scripts(project, marks, more="    stuck: {never: 1s}\n", resources="begin: now+1hour")
    failed = cluster.run(["sbatch", "--parsable", "--wrap", "exit 1", "--output", "/dev/null"]).stdout.strip()
    found: list[str] = []

    def act() -> None:
        job = eventually(lambda: _job_in(project.root / "cluster work" / "runs"), "a ledger")
        found.append(job)
        update = ["scontrol", "update", f"JobId={job}", f"Dependency=afterok:{failed}", "StartTime=now"]
        cluster.run(update)

    with meanwhile(act):
        result = project.run("staging", instance=instance)
    assert not result.success
    text = failure_text(result)
    assert "never starts (DependencyNeverSatisfied)" in text
    eventually(lambda: accounted(cluster, found[0]).startswith("CANCELLED"), "it is cancelled")


def accounted(cluster: slurm.Cluster, job: str) -> str:
    """Return a job's state in the accounting: slurmctld forgets one that has ended, and calls it COMPLETING before."""
    return cluster.run(["sacct", "-X", "-n", "-P", "-o", "State", "-j", job]).stdout.strip()


def test_more_nodes_than_there_are_is_told_with_the_line_of_nodes(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, marks: Path
) -> None:
    """Slurm calls it PartitionConfig, its one word for all that a partition limits; or it refuses the job (24.11)."""
    scripts(project, marks, more="    stuck: {held: 1s}\n", resources="nodes: 99, time: '5'")
    text = failure_text(project.run("staging", instance=instance))
    if "Requested node configuration is not available" in text:
        assert "The partition has fewer nodes" in text
        return
    assert "PartitionConfig" in text
    assert re.search(r"`nodes: 99` is written at .*defs\.yaml:\d+:\d+\. `time: 5` is written at", text), text


@pytest.mark.smoke
def test_a_preempted_job_gets_another_attempt(
    project: Project,
    cluster: slurm.Cluster,
    instance: dg.DagsterInstance,
    marks: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SlurmScheduler, "patience", Patience(absence=5.0))
    scripts(
        project,
        marks,
        more="    retry: {preempted: {attempts: 1}}\n",
        resources="partition: spot, nodelist: node4, exclusive: true",
    )
    taker = []

    def act() -> None:
        began(marks)
        wanted = ["--partition=high", "--nodelist=node4", "--exclusive", "--output=/dev/null"]
        taker.append(cluster.run(["sbatch", "--parsable", *wanted, "--wrap", "sleep 5"]).stdout.strip())
        began(marks, attempt=1)
        (marks / "gate").touch()

    with meanwhile(act):
        result = project.run("staging", instance=instance)
    assert result.success, failure_text(result)
    assert len(result.get_asset_materialization_events()) == 1
    said = "\n".join(record.user_message for record in instance.all_logs(result.run_id))
    assert "`retry.preempted` answers with attempt 1 of 1" in said


def test_a_preempted_job_that_slurm_requeues_is_still_the_same(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, marks: Path
) -> None:
    """All GPUs of a node, which no other test asks for, are what the two jobs compete for."""
    scripts(project, marks, resources="partition: preempt, nodelist: node3, gpus_per_node: 4")

    def act() -> None:
        job = began(marks)
        wanted = ["--partition=high", "--nodelist=node3", "--gpus-per-node=4", "--output=/dev/null"]
        cluster.run(["sbatch", "--parsable", *wanted, "--wrap", "sleep 1"])
        assert began(marks, restart=1) == job
        (marks / "gate").touch()

    with meanwhile(act):
        result = project.run("staging", instance=instance)
    assert result.success, failure_text(result)
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["restart"].value == 1
    assert len(list(_attempts(project))) == 1


@pytest.mark.parametrize("on_shutdown", ["detach", "cancel"])
def test_an_interrupted_step_leaves_its_job_or_cancels_it_as_the_profile_says(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, marks: Path, on_shutdown: str
) -> None:
    """The second interrupt comes while the first is being dealt with."""
    profile = project.root / "profiles" / "staging.yaml"
    profile.write_text(f"{profile.read_text()}on_shutdown: {on_shutdown}\n")
    scripts(project, marks)
    jobs: list[str] = []

    def act() -> None:
        jobs.append(began(marks))
        for _ in range(2):
            # Dagster has put its own handler in place of pytest's, since a step runs.
            os.kill(os.getpid(), signal.SIGINT)

    with meanwhile(act), suppress(dg.DagsterExecutionInterruptedError):
        assert not project.run("staging", instance=instance).success
    (run,) = instance.get_runs()
    said = "\n".join(record.user_message for record in instance.all_logs(run.run_id))
    if on_shutdown == "cancel":
        assert f"Job {jobs[0]} was cancelled and has ended: CANCELLED" in said
        eventually(lambda: accounted(cluster, jobs[0]).startswith("CANCELLED"), "it is cancelled")
    else:
        assert f"This step ends; job {jobs[0]} goes on." in said
        state = cluster.run(["squeue", "-h", "-t", "all", "-o", "%T", "-j", jobs[0]]).stdout.strip()
        assert state == "RUNNING"
        cluster.run(["scancel", jobs[0]])


HUNGRY = """
    import os, time
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        granted = int(os.environ["SLURM_MEM_PER_NODE"])
        if granted < 200:
            block = bytearray(os.urandom(1024)) * (300 * 1024)
            time.sleep(60)
        pipes.report_asset_materialization(metadata={"granted": granted})
"""


@pytest.mark.smoke
def test_out_of_memory_is_told_and_answered_with_more(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, marks: Path
) -> None:
    project.write("hungry.py", HUNGRY)
    project.scripts(
        """
        scripts:
          - payload: hungry.py
            resources: {mem: 100M, time: "00:10:00"}
            retry: {out_of_memory: {attempts: 1, mem: "x4", max_mem: 300M}}
            assets: [{key: fed}]
        """
    )
    result = project.run("staging", instance=instance)
    assert result.success, failure_text(result)
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["granted"].value == 300


CHECKPOINTS = """
    import os, time
    from dagster_pipes import open_dagster_pipes
    import dagster_slurm_payload as payload

    payload.listen()
    with open_dagster_pipes() as pipes:
        starts = int(payload.load("starts") or 0) + 1
        while starts < 3 and not payload.asked():
            time.sleep(0.05)
        payload.save("starts", str(starts).encode())
        if starts < 3:
            payload.leave()
        pipes.report_asset_materialization(
            metadata={"starts": starts, "restarts": payload.restart_count(), "job": os.environ["SLURM_JOB_ID"]}
        )
"""


def test_a_checkpoint_before_the_time_limit_and_two_requeues_lead_to_the_end(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, marks: Path
) -> None:
    project.write("checkpoints.py", CHECKPOINTS)
    project.scripts(
        """
        scripts:
          - payload: checkpoints.py
            resources: {time: "00:02:00", signal: "USR1@60"}
            requeue_on_timeout: 2
            assets: [{key: saved}]
        """
    )
    result = project.run("staging", instance=instance)
    assert result.success, failure_text(result)
    (event,) = result.get_asset_materialization_events()
    metadata = {name: value.value for name, value in event.materialization.metadata.items()}
    assert (metadata["starts"], metadata["restarts"]) == (3, 2)
    assert metadata["job"] == metadata["job/id"]
