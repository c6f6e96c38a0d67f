"""What can be wrong with the working folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dagster_slurm_components.doctor.findings import Finding, Verdict
from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.local import InProcessHost

Look = Callable[..., dict[str, Finding]]


class Answering(InProcessHost):
    """This machine, save for some operations."""

    def __init__(self, answers: Mapping[str, Callable[[], Mapping[str, Any]]]) -> None:
        super().__init__()
        self.answers = answers

    def call(self, op: str, params: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any) -> Reply:
        if op in self.answers:
            return Reply(self.answers[op]())
        return super().call(op, params, *args, **kwargs)


def raising(code: str) -> Callable[[], Mapping[str, Any]]:
    def answer() -> Mapping[str, Any]:
        raise SatelliteError(f"told as {code}", code=code)

    return answer


def test_nothing_is_left_behind(look: Look, tmp_path: Path) -> None:
    found = look()
    assert {found[check].verdict for check in ("workdir", "room", "flock")} <= {Verdict.OK, Verdict.WARNING}
    assert found["workdir"].verdict is Verdict.OK
    assert found["flock"].verdict is Verdict.OK
    assert list((tmp_path / "work dir").iterdir()) == []


def test_a_path_through_a_file(look: Look, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = look(workdir=str(tmp_path / "file" / "below"))
    assert found["workdir"].is_failure
    assert found["workdir"].advice
    assert found["flock"].verdict is Verdict.SKIPPED


def test_a_file_system_that_can_not_be_written(look: Look) -> None:
    """/proc refuses folders to everybody, root included."""
    assert look(workdir="/proc/dagster")["workdir"].is_failure


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("read_only", "read-only"),
        ("not_permitted", "may write"),
        ("disk_full", "quota"),
        ("failed", "Choose another"),
    ],
)
@pytest.mark.parametrize("op", ["mkdir", "put"])
def test_each_refusal_has_its_advice(look: Look, op: str, code: str, advice: str) -> None:
    found = look(at=Answering({op: raising(code)}))["workdir"]
    assert found.is_failure
    assert f"told as {code}" in found.detail
    assert advice in str(found.advice)


@pytest.mark.parametrize(
    ("available", "inodes", "inodes_available", "verdict"),
    [
        (500 * 1024**3, 10**7, 10**6, Verdict.OK),
        (10 * 1024**2, 10**7, 10**6, Verdict.WARNING),
        (500 * 1024**3, 10**7, 300, Verdict.WARNING),
        (500 * 1024**3, 0, 0, Verdict.OK),
    ],
)
def test_room(look: Look, available: int, inodes: int, inodes_available: int, verdict: Verdict) -> None:
    disk = {"total": 10**12, "available": available, "inodes": inodes, "inodes_available": inodes_available}
    assert look(at=Answering({"disk": lambda: disk}))["room"].verdict is verdict


def test_locks_that_do_not_hold(look: Look) -> None:
    result = {"returncode": 1, "timed_out": False, "truncated": False, "stdout": 0, "stderr": 0}
    assert look(at=Answering({"run": lambda: result}))["flock"].verdict is Verdict.WARNING


def test_a_variable_that_is_not_set(look: Look) -> None:
    found = look(workdir="$NO_SUCH_SCRATCH/dagster")["workdir"]
    assert found.is_failure
    assert "$NO_SUCH_SCRATCH is not set" in found.detail


def test_a_folder_that_other_nodes_do_not_see(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    workdir = "/tmp/dagster-slurm-doctor-test"
    try:
        found = look(workdir=workdir, scheduler="slurm")
    finally:
        Path(workdir).rmdir()
    assert found["workdir"].verdict is Verdict.WARNING
    assert "shared file system" in str(found["workdir"].advice)
