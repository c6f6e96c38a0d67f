"""What Slurm's programs do, as scripted executables do it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from satellite_fixture import bundle
from waiting import PATIENCE

from dagster_slurm_components.errors import HostUnreachableError, SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs import schedulers
from dagster_slurm_components.jobs.ending import cancel
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.slurm.accounting import MAX_IDS
from dagster_slurm_components.slurm.commands import sbatch

ROW = "{id}|{state}|1795367857|0|1|None|\n"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    made = FakeSlurm(tmp_path / "fake")
    monkeypatch.setenv("PATH", f"{made.folder / 'bin'}:/usr/bin:/bin")
    return made


@pytest.fixture
def scheduler(tmp_path: Path) -> SlurmScheduler:
    return SlurmScheduler(f"{tmp_path}/queue")


def submitted(fake: FakeSlurm, local: Satellite, tmp_path: Path, out: str, err: str = "") -> str | None:
    """Submit as the scheduler does; return the job's id."""
    fake.answer("sbatch", out, err=err)
    wish = SlurmScheduler(f"{tmp_path}/queue").settlement(
        f"{tmp_path}/w/runs/r/s/0", f"{tmp_path}/w", "t", "dg-t"
    )
    request = wish._replace(argv=tuple(sbatch("/w/job.sh")), settle_only=False)
    reply = local.submit(request, bundle({"job.sh": "true"}))
    assert reply.outcome == "submitted"
    return reply.job_id


@pytest.mark.parametrize(
    ("out", "err"),
    [
        ("Welcome!\n  quota: 42 of 100 GB\n123\n", ""),
        ("123;lab\n", "sbatch: lua: moved to the long queue"),
        ("Submitted batch job 123\n", "warning: TERM is not set"),
        (" 123 \n", ""),
    ],
)
def test_f11_noise_around_the_id_is_passed_over(
    fake: FakeSlurm, local: Satellite, tmp_path: Path, out: str, err: str
) -> None:
    assert submitted(fake, local, tmp_path, out, err) == "123"


@pytest.mark.parametrize("out", ["123;second\n", "Submitted batch job 123 on cluster second\n"])
def test_f42_the_name_of_a_federated_job_s_cluster_is_no_part_of_its_id(
    fake: FakeSlurm, local: Satellite, tmp_path: Path, out: str
) -> None:
    assert submitted(fake, local, tmp_path, out) == "123"


def handles(*ids: str) -> list[JobHandle]:
    return [JobHandle(job_id, f"/runs/{job_id}") for job_id in ids]


@pytest.mark.parametrize(
    "err",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "squeue: error: Rate limit exceeded, please try again",
    ],
)
def test_f13_a_squeue_that_fails_is_no_answer(
    fake: FakeSlurm, scheduler: SlurmScheduler, local: Satellite, err: str
) -> None:
    fake.answer("squeue", err=err, code=1)
    assert scheduler.queue(local, handles("7")).rows is None


def test_f14_a_squeue_that_hangs_is_given_up_and_only_one_runs(
    fake: FakeSlurm, scheduler: SlurmScheduler, local: Satellite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedulers, "_TIMEOUT", 1.0)
    fake.answer("squeue", delay=3600)
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.append(scheduler.queue(local, handles("7"), PATIENCE).rows)
        except SatelliteError as error:
            answers.append(error.code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert set(answers) <= {None, "locked"}
    assert len(answers) == 4
    assert len(fake.calls("squeue")) == 1, "its failure is shared"


def test_f20_a_slurmdbd_that_is_down_gives_no_answer_and_the_queue_goes_on(
    fake: FakeSlurm, scheduler: SlurmScheduler, local: Satellite
) -> None:
    fake.answer("sacct", err="sacct: error: slurm_persist_conn_open: Connection refused", code=1)
    fake.answer("squeue", ROW.format(id=7, state="RUNNING"))
    told = scheduler.accounting(local, {"7": 5.0})
    assert (told.rows, told.failed_age) == ({}, 0.0)
    rows = scheduler.queue(local, handles("7")).rows
    assert rows is not None
    assert rows["7"].state == "RUNNING"


def test_f37_f44_nothing_that_a_user_set_for_slurm_reaches_its_programs(
    fake: FakeSlurm, scheduler: SlurmScheduler, local: Satellite, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "SQUEUE_FORMAT": "%i",
        "SACCT_FORMAT": "jobid",
        "SLURM_TIME_FORMAT": "relative",
        "SBATCH_PARTITION": "wrong",
        "SLURM_JOB_ID": "99",
        "LC_ALL": "de_DE.UTF-8",
    }.items():
        monkeypatch.setenv(name, value)
    fake.answer("squeue", ROW.format(id=7, state="RUNNING"))
    scheduler.queue(local, handles("7"))
    environment = fake.environment("squeue").splitlines()
    assert "SLURM_TIME_FORMAT=%s" in environment
    assert "LC_ALL=C" in environment
    assert not any(line.startswith(("SQUEUE_", "SACCT_", "SBATCH_", "SLURM_JOB")) for line in environment)


def test_f39_a_thousand_jobs_are_one_short_command(
    fake: FakeSlurm, scheduler: SlurmScheduler, local: Satellite
) -> None:
    many = handles(*(str(number) for number in range(1000, 2000)))
    fake.answer("squeue", "".join(ROW.format(id=h.job_id, state="RUNNING") for h in many))
    fake.answer("sacct")
    rows = scheduler.queue(local, many).rows
    assert rows is not None
    assert len(rows) == 1000
    scheduler.accounting(local, {handle.job_id: 5.0 for handle in many[:MAX_IDS]})
    assert len(fake.calls("squeue")) == 1
    assert len(fake.calls("squeue")[0]) < 1000
    assert len(fake.calls("sacct")[0]) < 2000


def test_f43_a_job_moved_to_another_partition_is_the_same_job(
    fake: FakeSlurm, scheduler: SlurmScheduler, local: Satellite
) -> None:
    fake.answer("squeue", ROW.format(id=7, state="PENDING"))
    rows = scheduler.queue(local, handles("7")).rows
    assert rows is not None
    assert rows["7"].state == "PENDING"
    assert "partition" not in fake.calls("squeue")[0].lower(), "none is asked for, so none can matter"


def test_f40_a_cancel_names_exactly_this_job_and_is_asked_again_until_heard(
    fake: FakeSlurm, scheduler: SlurmScheduler, local: Satellite
) -> None:
    fake.answer(
        "scancel",
        err="scancel: error: Kill job error on job id 7: Unable to contact slurm controller",
        code=1,
        call=1,
    )
    fake.answer("scancel")
    with pytest.raises(HostUnreachableError):
        scheduler.cancel(local, handles("7")[0])
    cancel(Target(local, scheduler, None, "/w"), handles("7")[0], patience=PATIENCE)  # type: ignore[arg-type]
    assert all(call.split()[-1] == "7" for call in fake.calls("scancel"))


def test_f50_no_option_that_old_slurms_lack_is_used(
    fake: FakeSlurm, scheduler: SlurmScheduler, local: Satellite
) -> None:
    fake.answer("squeue")
    fake.answer("sacct")
    scheduler.queue(local, handles("7"))
    scheduler.accounting(local, {"7": 5.0})
    said = " ".join(fake.calls("squeue") + fake.calls("sacct"))
    for option in ("--json", "--yaml", "--only-job-state", "--expand-patterns"):
        assert option not in said
