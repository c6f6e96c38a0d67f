"""Ending a job: its lease says so first, and where nothing can be written the job ends all the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dagster_slurm_components.errors import HostUnreachableError, SatelliteError
from dagster_slurm_components.hosts.satellite.calls import LeaseRenewal
from dagster_slurm_components.jobs.ending import LeaseLostError, end_job
from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.reconcile import Evidence, Observation
from dagster_slurm_components.jobs.target import Target

HANDLE = JobHandle("7", "/w/runs/r/s/0")
FULL = SatelliteError("lease: No space left on device", code="disk_full", where="login")
GONE = Ended(Observation(state="CANCELLED"), Evidence())


@dataclass
class Host:
    """A satellite, scheduler and watcher in one; writing fails with ``broken``, if that is given."""

    broken: Exception | None = None
    epoch: int = 1
    done: list[str] = field(default_factory=list)

    def change_lease(
        self, run_dir: str, workdir: str, epoch: int, *, state: str, **changes: Any
    ) -> tuple[bool, Mapping[str, Any] | None]:
        self.done.append(state)
        if self.broken is not None:
            raise self.broken
        lease = {
            "version": 1,
            "epoch": self.epoch,
            "state": state,
            "digest": "d",
            "owner": None,
            "renewed": 0.0,
            "outcome": None,
            "finished": None,
            "shown": {},
            "note": {},
        }
        return epoch == self.epoch, lease

    def follow(
        self, files: Sequence[object], renewals: Sequence[LeaseRenewal], *, total: int
    ) -> tuple[list[object], list[tuple[int, str]]]:
        return [], [(self.epoch, "following")]

    def cancel(self, satellite: object, handle: JobHandle, *, force: bool = False) -> None:
        self.done.append("kill" if force else "term")

    def cancelled(self, handle: object) -> None: ...

    def end(self, *ends: Ended | None) -> Ended | None:
        answers = list(ends)
        place = Target(self, SimpleNamespace(cancel=self.cancel), self, "/w")  # type: ignore[arg-type]
        return end_job(place, HANDLE, 1, lambda seconds: answers.pop(0))


def test_the_lease_says_so_first() -> None:
    host = Host()
    assert host.end(None, GONE) is GONE
    assert host.done == ["cancel wanted", "term", "kill", "cancelled"]


def test_a_job_whose_end_stays_out_is_left_marked() -> None:
    host = Host()
    assert host.end(None, None) is None
    assert host.done == ["cancel wanted", "term", "kill"]


def test_a_full_disk_keeps_no_job_alive() -> None:
    """The lease could not be written, so a run was CANCELED and its job went on, and filled the disk."""
    host = Host(broken=FULL)
    assert host.end(GONE) is GONE
    assert host.done == ["cancel wanted", "term", "cancelled"]


@pytest.mark.parametrize("broken", [None, FULL])
def test_another_s_job_is_left_alone(broken: Exception | None) -> None:
    host = Host(broken=broken, epoch=2)
    with pytest.raises(LeaseLostError):
        host.end()
    assert host.done == ["cancel wanted"]


def test_a_host_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagster_slurm_components.jobs.ending._ANSWER", 0.0)
    host = Host(broken=HostUnreachableError("no route", where="login"))
    with pytest.raises(HostUnreachableError):
        host.end()
    assert host.done == ["cancel wanted"]
