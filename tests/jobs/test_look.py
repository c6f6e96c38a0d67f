"""A look at jobs from outside: what a process's number can tell, and where."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from satellite_fixture import local  # noqa: F401

from dagster_slurm_components.errors import HostRefusedError, SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.ending import cancel
from dagster_slurm_components.jobs.lease import Attempt, Lease, LedgerRecord, parse_attempt
from dagster_slurm_components.jobs.look import look_at, observe
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.reconcile import LOST, SUBMITTED
from dagster_slurm_components.jobs.records import observed, run_directories
from dagster_slurm_components.jobs.retention import judge_folders
from dagster_slurm_components.jobs.schedulers import (
    AccountingRows,
    ProcessScheduler,
    QueueRows,
    Scheduler,
    SlurmScheduler,
)
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.spec.profile import Retention

DAY = 86400.0


def at(satellite: Satellite, workdir: Path, scheduler: Scheduler | None = None) -> Target:
    """Return a place without a watcher."""
    return Target(satellite, scheduler or ProcessScheduler(), None, str(workdir))  # type: ignore[arg-type]


def attempt_in(satellite: Satellite, folder: Path) -> Attempt:
    """Return the attempt that a run directory is."""
    (files,) = satellite.attempts(str(folder.parent))
    return parse_attempt(files)


@pytest.mark.parametrize(
    ("host", "more", "state", "goes"),
    [
        ("another-machine", "", "RUNNING", False),
        ("another-machine", "ended=9\nexit=0\n", "COMPLETED", True),
        (os.uname().nodename, "", LOST, True),
    ],
    ids=["elsewhere", "ended elsewhere", "here"],
)
def test_a_process_is_judged_on_its_own_machine_alone(
    tmp_path: Path,
    local: Satellite,  # noqa: F811
    host: str,
    more: str,
    state: str,
    goes: bool,
) -> None:
    folder = tmp_path / "runs" / "run" / "step" / "0"
    folder.mkdir(parents=True)
    (folder / "ledger").write_text("token=ab\nintent=5\njob_id=2:0-no-such-boot\nsubmitted=6\n")
    (folder / "status").write_text(f"restart=0\nstarted=6\nhost={host}\n{more}")
    for path in folder.iterdir():
        os.utime(path, (6, 6))
    place = at(local, tmp_path)
    (seen,) = look_at(place, [attempt_in(local, folder)])
    assert seen is not None
    assert seen.observation.state == state
    found = observed(place, run_directories(place))
    (verdict,) = judge_folders(found, Retention(success="1d", failure="1d"), 400 * DAY)
    assert verdict.remove is goes


@pytest.mark.parametrize(("host", "refused"), [("another-machine", True), (os.uname().nodename, False)])
def test_a_process_is_cancelled_on_its_own_machine_alone(
    tmp_path: Path,
    local: Satellite,  # noqa: F811
    host: str,
    refused: bool,
) -> None:
    """One that is gone here has ended; of one that is elsewhere that is not known."""
    (tmp_path / "status").write_text(f"restart=0\nstarted=6\nhost={host}\n")
    handle = JobHandle("2:0-no-such-boot", str(tmp_path))
    expected = pytest.raises(HostRefusedError, match="of another machine") if refused else nullcontext()
    with expected:
        cancel(at(local, tmp_path), handle, patience=0)


class Unasked(SlurmScheduler):
    """The budget of queries is used up, for all or for the accounting alone."""

    def __init__(self, *, queue: bool, age: float = 0.0) -> None:
        super().__init__("/nowhere")
        self._answers, self._age = queue, age
        self.unknown: list[str] = []

    def queue(self, satellite: object, handles: object, max_age: float = 0.0) -> QueueRows:
        if self._answers:
            return QueueRows({}, self._age, asked=time.time() - self._age)
        raise SatelliteError("no query is left", code="over_budget")

    def accounting(
        self, satellite: object, wanted: Mapping[str, float], *, spare: bool = False
    ) -> AccountingRows:
        self.unknown += wanted
        return AccountingRows({}, 1e9)


@pytest.mark.parametrize("queue", [False, True])
@pytest.mark.parametrize(("status", "state"), [("", SUBMITTED), ("restart=0\nstarted=6\n", "RUNNING")])
def test_a_question_that_can_not_be_asked_is_no_observation(
    tmp_path: Path,
    local: Satellite,  # noqa: F811
    queue: bool,
    status: str,
    state: str,
) -> None:
    """Seen when four retries of a minute looked for their jobs: the fifth query failed the step."""
    folder = tmp_path / "0"
    folder.mkdir()
    (folder / "ledger").write_text("token=ab\nintent=5\njob_id=12\nsubmitted=6\n")
    (folder / "status").write_text(status)
    (seen,) = look_at(at(local, tmp_path, Unasked(queue=queue)), [attempt_in(local, folder)])
    assert seen is not None
    assert (seen.observation.state, seen.alive) == (state, True)


class Silent(SlurmScheduler):
    """Knows nothing of any job; the accounting fails, or says that there is none."""

    def __init__(self, *, kept: bool) -> None:
        super().__init__("/nowhere")
        self._kept = kept

    def queue(self, satellite: object, handles: object, max_age: float = 0.0) -> QueueRows:
        return QueueRows({})

    def accounting(
        self, satellite: object, wanted: Mapping[str, float], *, spare: bool = False
    ) -> AccountingRows:
        self.has_accounting = self._kept
        return AccountingRows({}, 0.0)


@pytest.mark.parametrize("kept", [True, False])
def test_a_job_that_vanished_is_lost_in_the_end_though_no_accounts_tell_of_it(
    tmp_path: Path,
    local: Satellite,  # noqa: F811
    kept: bool,
) -> None:
    """A left job whose node died ran for ever. Where accounts are kept, one look alone proves nothing."""
    (tmp_path / "status").write_text("restart=0\nstarted=6\n")
    attempt = Attempt(0, str(tmp_path), Lease(), LedgerRecord("t", "12", 6.0))
    place = at(local, tmp_path, Silent(kept=kept))
    (once,) = look_at(place, [attempt])
    assert once is not None
    assert (once.observation.state, once.alive) == (("RUNNING", True) if kept else (LOST, False))
    (first,) = look_at(place, [attempt], {})
    assert first is not None
    assert first.observation.absent_since is not None
    for waited, alive in ((800.0, True), (1000.0, False)):
        before = replace(first.observation, absent_since=first.observation.absent_since - waited)
        (seen,) = look_at(place, [attempt], {attempt.run_dir: before})
        assert seen is not None
        assert seen.alive is alive


@pytest.mark.parametrize(
    ("age", "submitted", "gone"),
    [
        (0, 0, True),
        (2, 0, False),
        (2, 4, True),
        (60, 0, False),
        (60, 100, True),
        (0, None, True),
        (2, None, False),
    ],
)
def test_an_answer_from_before_a_job_was_there_says_nothing_of_it(
    local: Satellite,  # noqa: F811
    tmp_path: Path,
    age: float,
    submitted: float | None,
    gone: bool,
) -> None:
    """A job that ran was not listed, as LOST: another's answer, two seconds old, was from before it was submitted."""
    scheduler = Unasked(queue=True, age=age)
    handle = JobHandle("12", str(tmp_path), submitted=None if submitted is None else time.time() - submitted)
    observe(at(local, tmp_path, scheduler), [(handle, None)])
    assert (scheduler.unknown == ["12"]) is gone


def test_of_many_attempts_each_is_told_in_its_place_and_all_their_files_are_one_call(
    tmp_path: Path,
    local: Satellite,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts = []
    for number, status in enumerate(["ended=9\nexit=0\n", "", "ended=9\nexit=3\n"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "status").write_text(f"restart=0\nstarted=6\nhost=elsewhere\n{status}")
        job = None if not status else f"{number + 1}:0-no-such-boot"
        attempts.append(Attempt(number, str(folder), Lease(), LedgerRecord("t", job, 6.0)))
    calls = []
    read = Satellite.read
    monkeypatch.setattr(Satellite, "read", lambda self, asked: (calls.append(asked), read(self, asked))[1])
    place = at(local, tmp_path)
    seen = look_at(place, attempts)
    assert [each and each.observation.state for each in seen] == ["COMPLETED", None, "FAILED"]
    assert [each and each.ended_badly for each in seen] == [False, None, True]
    assert len(calls) == 1
    assert look_at(place, attempts[1:2]) == [None]
    assert len(calls) == 1, "where there is no job, nobody is asked"


def test_who_looks_again_and_again_waits_silences_out(
    tmp_path: Path,
    local: Satellite,  # noqa: F811
) -> None:
    """A process that is gone may have written its end to a file system that shows it later."""
    (tmp_path / "status").write_text("restart=0\nstarted=6\n")
    attempt = Attempt(0, str(tmp_path), Lease(), LedgerRecord("t", "1:0-no-such-boot", 6.0))
    place = at(local, tmp_path)
    (first,) = look_at(place, [attempt], {})
    assert first is not None
    assert first.alive
    assert first.observation.absent_since is not None
    later = replace(first.observation, absent_since=first.observation.absent_since - 60.0)
    (second,) = look_at(place, [attempt], {attempt.run_dir: later})
    assert second is not None
    assert second.observation.state == LOST


def test_of_a_job_that_slurm_forgot_its_daemon_s_last_words_tell_how_it_ended(
    tmp_path: Path,
    local: Satellite,  # noqa: F811
) -> None:
    """A left job that reached its time limit while Dagster was off was told as cancelled, without accounts."""
    (tmp_path / "status").write_text("restart=0\nstarted=6\nsignal=TERM\nexit=143\n")
    noise = "x" * 20_000
    said = f"{noise}\nslurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***\n"
    (tmp_path / "stderr.log").write_text(said)
    attempt = Attempt(0, str(tmp_path), Lease(), LedgerRecord("t", "12", 6.0))
    (seen,) = look_at(at(local, tmp_path, Silent(kept=False)), [attempt])
    assert seen is not None
    assert (seen.observation.state, seen.observation.source) == ("TIMEOUT", "stderr")
