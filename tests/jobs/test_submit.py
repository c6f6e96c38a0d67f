"""Submission repeats without harm, waits for what passes, and stops at a lasting no."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from dagster_slurm_components.environments.base import Activation, ActivationStep
from dagster_slurm_components.errors import DagsterSlurmError, HostUnreachableError, ParkedTooLongError
from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.parked import ParkedHost, Parking
from dagster_slurm_components.hosts.satellite.calls import Budget, LeaseRequest, SubmitReply, SubmitRequest
from dagster_slurm_components.jobs.bundle import array_of, bundle, env_file
from dagster_slurm_components.jobs.events import MESSAGES, NEWS, STDERR, STDOUT, Watch
from dagster_slurm_components.jobs.lease import Attempt, Lease, LedgerRecord
from dagster_slurm_components.jobs.model import JobHandle, JobIdentity, JobSpec
from dagster_slurm_components.jobs.reconcile import Evidence
from dagster_slurm_components.jobs.schedulers import ProcessScheduler, SlurmScheduler
from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.jobs.submit import (
    LackingError,
    SubmitRejectedError,
    TakenError,
    find_job,
    request_for,
    submit,
)
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.launchers.base import LaunchPlan
from dagster_slurm_components.slurm.queue import squeue

SLURM = SlurmScheduler("/w/queue")


def job(**changes: object) -> JobSpec:
    base: dict[str, object] = {
        "identity": JobIdentity("run-1", "train"),
        "launch": LaunchPlan(script="exec true\n", payload=("true",), options=("--deep", "a b")),
        "activation": Activation((ActivationStep("prefix", ("/env",)),)),
        "sbatch": (("partition", "gpu"), ("cpus-per-task", "4")),
        "env": {"A": "it's\n$(id)"},
        "files": {PurePosixPath("deep/train.py"): Path(__file__)},
    }
    return JobSpec(**{**base, **changes})  # type: ignore[arg-type]


@dataclass
class Scripted:
    """A satellite whose answers to ``submit`` are given."""

    answers: list[SubmitReply | Exception]
    asked: list[tuple[SubmitRequest, bytes]] = field(default_factory=list)
    host = SimpleNamespace(name="login")

    def submit(self, request: SubmitRequest, packed: bytes) -> SubmitReply:
        self.asked.append((request, packed))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def at(satellite: Scripted | Satellite) -> Target:
    return Target(satellite, SLURM, SimpleNamespace(park_timeout=3600.0), "/w")  # type: ignore[arg-type]


def go(answers: Sequence[SubmitReply | Exception]) -> tuple[Scripted, list[float], list[str], str]:
    satellite, waits, told = Scripted(list(answers)), [], []
    handle = submit(at(satellite), job(), tell=told.append, sleep=waits.append)
    return satellite, waits, told, handle.job_id


def test_one_call_submits() -> None:
    satellite, waits, told, job_id = go([SubmitReply("submitted", "7")])
    assert (len(satellite.asked), waits, told, job_id) == (1, [], [], "7")
    request = satellite.asked[0][0]
    assert request.run_dir == "/w/runs/run-1/train/0"
    assert request.argv == ("sbatch", "--parsable", "/w/runs/run-1/train/0/job.sh", "/w/runs/run-1/train/0")
    assert all(job().identity.job_name in " ".join(lookup) for lookup in request.lookups)


def test_what_the_job_needs_is_asked_for_in_the_same_call() -> None:
    spec = job(activation=Activation(needs=("/w/envs/k/.ready",)))
    for scheduler in (SLURM, ProcessScheduler()):
        assert request_for(scheduler, spec, "/w/run", "/w").needs == ("/w/envs/k/.ready",)
    with pytest.raises(LackingError, match="/w/envs/k/"):
        go([SubmitReply("lacking", detail="/w/envs/k/.ready")])


class Losing:
    """A host that does the first submission and loses its reply."""

    name = "login"

    def __init__(self) -> None:
        self.asked: list[tuple[str, object, bytes]] = []

    def call(
        self, op: str, params: Mapping[str, Any] | None = None, blob: bytes = b"", *, timeout: float = 60.0
    ) -> Reply:
        self.asked.append((op, params, blob))
        if len(self.asked) == 1:
            raise HostUnreachableError("reset")
        return Reply({"outcome": "known", "job_id": "7"})

    def close(self) -> None: ...


def test_f08_a_lost_reply_is_asked_again_with_the_same_token_and_bundle() -> None:
    host, waits, told = Losing(), [], []
    parked = ParkedHost(host, Parking(60, tell=told.append, sleep=waits.append))
    assert submit(at(Satellite(parked)), job(), sleep=pytest.fail).job_id == "7"
    assert host.asked[0] == host.asked[1]
    assert len(waits) == 1
    assert "This step waits" in told[0]


def test_a_limit_on_jobs_travels_with_each_submission() -> None:
    budget = Budget("/w/queue/budget.json", 2, 10)
    limit = request_for(SlurmScheduler("/w/queue", budget, 3), job(), "/w/run", "/w").limit
    assert limit is not None
    assert limit.snapshot is not None
    assert (limit.jobs, limit.path) == (3, "/w/queue/submitted.json")
    # The watcher's own question, so that both share one answer; asked no more often than the budget allows.
    assert (limit.snapshot.argv, limit.snapshot.budget) == (tuple(squeue()), budget)
    assert limit.snapshot.max_age == 30
    assert request_for(SLURM, job(), "/w/run", "/w").limit is None
    assert request_for(ProcessScheduler("/w/queue", 2), job(), "/w/run", "/w").limit is not None
    full = SubmitReply("full", detail="3 jobs wait or run, and limits.max_submit_jobs is 3")
    _, waits, told, job_id = go([full, full, full, SubmitReply("submitted", "9")])
    assert (job_id, waits) == ("9", [1, 2, 4])
    assert "limits.max_submit_jobs is 3" in told[0]


def test_who_submits_and_what_travels_with_each_submission() -> None:
    claim = LeaseRequest("d", "c", {"run_id": "r"}, {"step": "train"}, 3)
    for scheduler in (SLURM, ProcessScheduler()):
        assert request_for(scheduler, job(), "/w/run", "/w", claim).claim == claim
        assert request_for(scheduler, job(), "/w/run", "/w").claim is None
    satellite = Scripted([SubmitReply("uncertain"), SubmitReply("submitted", "7")])
    waits: list[float] = []
    submit(at(satellite), job(), claim=claim, sleep=waits.append)
    assert [request.claim for request, _ in satellite.asked] == [claim, claim]


def test_another_s_job_is_told_and_not_waited_for() -> None:
    with pytest.raises(TakenError, match="/w/runs/run-1/train/0 is taken: it has other content"):
        go([SubmitReply("taken", detail="it has other content")])


def find(
    answers: Sequence[SubmitReply | Exception], ledger: LedgerRecord
) -> tuple[Scripted, list[float], list[str], JobHandle | None]:
    satellite, waits, told = Scripted(list(answers)), [], []
    attempt = Attempt(0, "/w/runs/run-1/train/0", Lease(epoch=1), ledger)
    found = find_job(at(satellite), attempt, "train-ab", tell=told.append, sleep=waits.append)
    return satellite, waits, told, found


def test_a_job_that_the_ledger_knows_is_not_asked_for() -> None:
    satellite, _, _, found = find([], LedgerRecord("ab", "12", 6.0))
    assert satellite.asked == []
    assert found == JobHandle("12", "/w/runs/run-1/train/0", "known", 6.0)


@pytest.mark.parametrize(
    ("last", "job_id"), [(SubmitReply("none"), None), (SubmitReply("adopted", "9"), "9")]
)
def test_what_may_be_a_job_is_asked_for_until_that_is_known_and_nothing_is_submitted(
    last: SubmitReply, job_id: str | None
) -> None:
    uncertain = SubmitReply("uncertain", retry_after=42.0, detail="nobody knows")
    satellite, waits, told, found = find(
        [uncertain, SubmitReply("uncertain"), last], LedgerRecord("ab", None, None)
    )
    assert (found.job_id if found else None) == job_id
    assert len(waits) == 2
    assert waits[0] == 42.0
    assert "nobody knows" in told[0]
    for request, packed in satellite.asked:
        assert (request.settle_only, request.argv, packed) == (True, (), b"")
        assert request.token == "ab"
        assert all("train-ab" in " ".join(lookup) for lookup in request.lookups)


def test_a_process_is_settled_without_a_lookup() -> None:
    asked = ProcessScheduler().settlement("/w/run", "/w", "ab", "train-ab")
    assert (asked.mode, asked.settle_only, asked.argv, asked.token) == ("process", True, (), "ab")


def test_f09_an_uncertain_end_waits_as_long_as_the_satellite_says() -> None:
    uncertain = SubmitReply("uncertain", retry_after=42.0, detail="nobody knows")
    _, waits, told, _ = go([uncertain, SubmitReply("adopted", "7")])
    assert waits == [42.0]
    assert "nobody knows" in told[0]


def test_what_nobody_can_tell_is_waited_out_as_a_lost_host_is() -> None:
    """It was asked for ever. A limit in between shows that Slurm answers."""
    failed = SubmitReply("uncertain", detail="squeue failed", returncode=1, stderr="Access/permission denied")
    limit = SubmitReply("rejected", returncode=1, stderr="sbatch: error: QOSMaxSubmitJobPerUserLimit")
    with pytest.raises(ParkedTooLongError) as caught:
        go([failed] * 100)
    said = str(caught.value)
    assert "squeue failed. Access/permission denied This has lasted for 1.0 h" in said
    assert "park_timeout" in said
    assert "run the step again: it takes up the same job" in said
    _, waits, _, job_id = go([*[failed] * 50, limit, *[failed] * 50, SubmitReply("submitted", "9")])
    assert (job_id, sum(waits) > 3600) == ("9", True)


def test_f12_a_limit_is_waited_out() -> None:
    limit = SubmitReply(
        "rejected",
        returncode=1,
        stderr="sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: "
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)\n",
    )
    _, waits, told, job_id = go([limit, limit, limit, SubmitReply("submitted", "9")])
    assert job_id == "9"
    assert waits == sorted(waits)
    assert "tried again" in told[0]


def test_a_controller_whose_disk_is_full_is_waited_out_and_told() -> None:
    full = "sbatch: error: Batch job submission failed: I/O error writing script/environment to file\n"
    no = SubmitReply("rejected", returncode=1, stderr=full)
    _, waits, told, job_id = go([no, no, SubmitReply("submitted", "9")])
    assert (job_id, len(waits)) == ("9", 2)
    assert (
        "I/O error writing script/environment to file. Slurm's controller can't store the job script, most likely "
        "because its disk is full: tell the site. It is tried again." in told[0]
    )


def test_f12_a_lasting_no_is_raised_at_once_with_the_option() -> None:
    no = SubmitReply("rejected", returncode=1, stderr="sbatch: error: invalid partition specified: gpuu\n")
    with pytest.raises(SubmitRejectedError) as caught:
        go([no])
    assert caught.value.rejection.option == "partition"
    assert "gpuu" in str(caught.value)


def test_the_bundle_is_the_run_directory_and_always_the_same_bytes(tmp_path: Path) -> None:
    script = tmp_path / "run me.sh"
    script.write_text("true")
    script.chmod(0o755)
    spec = job(files={PurePosixPath("run me.sh"): script})
    header = SLURM.header(spec, "/w/50%/run")
    packed = bundle(spec, header)
    assert packed == bundle(spec, header)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        modes = {member.name: member.mode for member in archive.getmembers()}
        texts = {name: archive.extractfile(name).read() for name in modes if name != "payload"}  # type: ignore[union-attr]
    assert modes["payload/run me.sh"] == 0o700
    assert modes["job.env"] == 0o600
    assert texts["launch.args"] == b"--deep\0a b\0--\0true\0"
    assert texts["activate.args"] == b"prefix\x001\0/env\0"
    assert texts["job.env"].decode() == "export A='it'\"'\"'s\n$(id)'\n"
    assert (
        texts["job.sh"]
        .decode()
        .startswith("#!/bin/bash\n#SBATCH --partition=gpu\n#SBATCH --cpus-per-task=4\n")
    )
    assert b"--output=/w/50%%/run/stdout.log" in texts["job.sh"]
    assert b"it's" not in texts["job.sh"]


def test_what_whoever_follows_a_job_looks_for_is_there_from_the_start() -> None:
    """An NFS client remembers for up to a minute that there is no such file (acdirmax)."""

    def names(spec: JobSpec) -> set[str]:
        with tarfile.open(fileobj=io.BytesIO(bundle(spec, ""))) as archive:
            return {member.name for member in archive if member.size == 0}

    watch = Watch(JobHandle("7", "/runs/7"))
    (first,) = watch.files
    watch.evidence = Evidence(status=StatusRecord())
    assert {first, MESSAGES} <= names(job())
    # Slurm, or the satellite, makes these before the job begins, and nobody looks for them before it has.
    assert {*watch.files} - names(job()) == {STDOUT, STDERR}
    array = names(array_of({0: job(), 4: job()}, keys_per_task=1, max_parallel=None))
    assert {NEWS, *(f"elements/{number}/{name}" for number in (0, 4) for name in (first, MESSAGES))} <= array


def test_a_process_gets_no_sbatch_lines() -> None:
    assert ProcessScheduler().header(job(), "/w/run") == "#!/bin/bash\n"


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A\n", "Ä"])
def test_names_that_no_shell_can_export_are_refused(name: str) -> None:
    with pytest.raises(DagsterSlurmError, match="can't be the name"):
        env_file({name: "x"})


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    spec = job(files={PurePosixPath("a"): tmp_path / "gone.py"})
    with pytest.raises(DagsterSlurmError, match=r"gone\.py can't be read"):
        bundle(spec, "")


def test_a_large_file_goes_into_the_bundle_without_being_held(tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.touch()
    os.truncate(large, 96 << 20)
    spec = job(files={PurePosixPath("large.bin"): large})
    tracemalloc.start()
    try:
        packed = bundle(spec, "")
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert archive.getmember("payload/large.bin").size == 96 << 20


def test_files_that_grew_beyond_what_a_job_carries_are_refused_unread(tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.touch()
    os.truncate(large, 3 << 30)
    spec = job(files={PurePosixPath("large.bin"): large})
    with pytest.raises(DagsterSlurmError, match=r"larger than 256\.0 MiB; payload/large\.bin was too much"):
        bundle(spec, "")


def test_an_old_unclear_submission_is_looked_for_as_long_as_jobs_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.time", lambda: 100 * 86400.0)
    asked = SlurmScheduler("/w/queue").settlement("/w/run", "/w", "ab", "train-ab")
    assert f"--starttime=uts{70 * 86400}" in asked.lookups[1]
