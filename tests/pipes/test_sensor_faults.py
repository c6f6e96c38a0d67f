"""The sensor goes on where one thing fails: somebody else's mail server, one job that can't be ended from here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError, SatelliteError
from dagster_slurm_components.jobs.lease import CANCEL_WANTED, CANCELLED, Attempt, Lease, LedgerRecord
from dagster_slurm_components.jobs.look import JobInfo
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.jobs.reconcile import Evidence, Observation
from dagster_slurm_components.pipes import orphans, sensor
from dagster_slurm_components.pipes.orphans import Orphans
from dagster_slurm_components.pipes.runs import Finding
from dagster_slurm_components.pipes.sensor import slurm_jobs_sensor
from dagster_slurm_components.slurm.states import Phase


def test_a_notice_that_fails_is_no_reason_to_tell_all_of_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick failed, its cursor was lost, and the runs' logs got the same lines each minute."""
    told: list[frozenset[str]] = []

    def found(context: object, project: Path, before: frozenset[str], known: object) -> Iterator[Finding]:
        told.append(before)
        yield from (Finding(key, "r", f"found {key}") for key in "ab" if key not in before)

    def mail(text: str) -> None:
        raise ConnectionRefusedError("no mail server")

    monkeypatch.setattr(sensor, "_pass", found)
    watch_jobs = slurm_jobs_sensor(project=tmp_path, notify=mail)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance)
        assert isinstance(watch_jobs(context), dg.SkipReason)
        watch_jobs(dg.build_sensor_context(instance=instance, cursor=context.cursor))
    assert told == [frozenset(), frozenset("ab")]


class Place:
    """A host with two jobs of a cancelled run: the first may not be ended from here."""

    def __init__(self, refusal: Exception | None = None, *, full: bool = False) -> None:
        self.refusal = refusal
        self.full = full
        self.changes: list[tuple[str, str]] = []
        self.cancelled: list[str] = []
        self.workdir = "/w"
        self.leases = self
        self.satellite = SimpleNamespace(host=SimpleNamespace(name="login"))
        self.scheduler = SimpleNamespace(has_accounting=False, cancel=self.cancel)

    def cancel(self, satellite: object, handle: JobHandle, *, force: bool = False) -> None:
        if handle.job_id == "1" and self.refusal is not None:
            raise self.refusal
        self.cancelled.append(handle.job_id)

    def open(self) -> tuple[list[Attempt], float]:
        owner = Owner("r", "elsewhere", "", 1, "1-boot")
        ledgers = [LedgerRecord("t", job, None) for job in ("1", "2")]
        return [
            Attempt(0, f"/w/runs/r/s{ledger.job_id}/0", Lease(epoch=1, owner=owner), ledger)
            for ledger in ledgers
        ], 1e6

    def take(self, attempt: Attempt, owner: Owner, *, state: str) -> Lease:
        return self.change(attempt.run_dir, 1, state)

    def change(self, run_dir: str, epoch: int, state: str, *, outcome: str | None = None) -> Lease:
        if self.full:
            raise SatelliteError("no space", code="disk_full")
        self.changes.append((run_dir, state))
        return Lease(epoch=epoch, state=state)


def looked_after(place: Place, monkeypatch: pytest.MonkeyPatch, seen: Observation) -> list[Finding]:
    run = dg.DagsterRun("job", run_id="r", status=dg.DagsterRunStatus.CANCELED)
    records = {"r": SimpleNamespace(dagster_run=run)}
    monkeypatch.setattr(Orphans, "_records", lambda self, attempts: records)

    def look_at(place: object, attempts: list[Attempt]) -> list[JobInfo]:
        handles = [JobHandle(each.ledger.job_id or "", each.run_dir) for each in attempts]
        return [JobInfo(handle, seen, Evidence()) for handle in handles]

    monkeypatch.setattr(orphans, "look_at", look_at)
    with dg.DagsterInstance.ephemeral() as instance:
        return list(Orphans(instance, place, "local").look_after(*place.open(), frozenset()))  # type: ignore[arg-type]


RUNS = Observation(state="RUNNING", phase=Phase.RUNNING)


def test_a_job_that_can_not_be_ended_from_here_keeps_no_other_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(HostRefusedError("it is a process of another machine", where="login"))
    first, second = looked_after(place, monkeypatch, RUNS)
    assert "job 1 on login" in first.text
    assert "another machine" in first.text
    assert second.text.startswith("Cancelled the job 2 on login, which no run follows. Run directory: /")
    assert second.text.endswith("; to see more: dg-slurm jobs show 2 --profile local")
    assert [state for _, state in place.changes] == [CANCEL_WANTED, CANCEL_WANTED]
    assert place.cancelled == ["2"]


def test_a_host_that_is_lost_is_left_for_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HostUnreachableError):
        looked_after(Place(HostUnreachableError("lost")), monkeypatch, RUNS)


def test_on_a_full_disk_jobs_are_cancelled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(full=True)
    looked_after(place, monkeypatch, RUNS)
    assert place.cancelled == ["1", "2"]


def test_what_is_over_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()
    assert looked_after(place, monkeypatch, Observation(state="FAILED", phase=Phase.TERMINAL)) == []
    assert [state for _, state in place.changes] == [CANCEL_WANTED, CANCEL_WANTED, CANCELLED, CANCELLED]
