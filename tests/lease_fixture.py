"""A call's folder on a host, with a fake Slurm, and the leases in it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from satellite_fixture import FakeSlurm, bundle

from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import LeaseRenewal, LeaseRequest, SubmitReply

BUNDLE = bundle({"job.sh": "true"})
OURS: Mapping[str, Any] = {
    "run_id": "r1",
    "node": "n1",
    "pid_namespace": "pid:[1]",
    "pid": 7,
    "start": "7-boot",
}
THEIRS: Mapping[str, Any] = {**OURS, "run_id": "r2", "pid": 8, "start": "8-boot"}
LONG_AGO = 1_000_000.0


def claim(digest: str = "d1", **changes: Any) -> LeaseRequest:
    wanted: dict[str, Any] = {"content": "c1", "owner": OURS, "note": {"step": "train"}, **changes}
    return LeaseRequest(digest, **wanted)


class Step:
    """A call's folder on a host, and the attempts in it."""

    def __init__(
        self, satellite: Satellite, slurm: FakeSlurm, workdir: Path, folder: str = "runs/r1/step"
    ) -> None:
        self.satellite = satellite
        self.slurm = slurm
        self.workdir = workdir
        self.folder = f"{workdir}/{folder}"

    def run_dir(self, attempt: int = 0) -> str:
        return f"{self.folder}/{attempt}"

    def path(self, attempt: int = 0) -> Path:
        return Path(self.run_dir(attempt))

    def submit(self, attempt: int = 0, wanted: LeaseRequest | None = None, **changes: Any) -> SubmitReply:
        request = self.slurm.request(
            self.workdir,
            run_dir=self.run_dir(attempt),
            token=f"t{attempt}",
            claim=wanted if wanted is not None else claim(),
            **changes,
        )
        return self.satellite.submit(request, BUNDLE)

    def change(self, epoch: int = 1, attempt: int = 0, **changes: Any) -> tuple[bool, Mapping[str, Any]]:
        changed, lease = self.satellite.change_lease(
            self.run_dir(attempt), str(self.workdir), epoch, **changes
        )
        assert lease is not None
        assert lease == self.lease(attempt), "what is told is what stands there"
        return changed, lease

    def lease(self, attempt: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path(attempt) / "lease").read_text())
        return found

    def write(self, attempt: int = 0, **changes: Any) -> None:
        """Change a lease as only time, or another program, does."""
        (self.path(attempt) / "lease").write_text(json.dumps({**self.lease(attempt), **changes}))

    def renew(self, epoch: int = 1, shown: Mapping[str, Any] | None = None) -> tuple[int, str]:
        _, (told,) = self.satellite.follow([], [LeaseRenewal(self.run_dir(), epoch, shown)], total=0)
        return told

    def listed(self) -> list[str]:
        """Return the run directories of the open leases."""
        before = time.time()
        found, now = self.satellite.open_leases(str(self.workdir))
        assert before - 1 <= now <= time.time() + 1
        return [each.run_dir for each in found]

    @property
    def index(self) -> Path:
        return self.workdir / "open"


@pytest.fixture
def step(satellite: Satellite, slurm: FakeSlurm, workdir: Path) -> Step:
    return Step(satellite, slurm, workdir)


@pytest.fixture
def here(local: Satellite, slurm: FakeSlurm, workdir: Path) -> Step:
    """The same, in-process alone."""
    return Step(local, slurm, workdir)
