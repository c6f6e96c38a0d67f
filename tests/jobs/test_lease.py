"""What a lease means, and what somebody who wants to run the same call has to do first."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from waiting import PATIENCE

from dagster_slurm_components.hosts.satellite import leases
from dagster_slurm_components.hosts.satellite.calls import AttemptFiles
from dagster_slurm_components.jobs import owner as jobs_owner
from dagster_slurm_components.jobs.lease import (
    CANCEL_WANTED,
    CANCELLED,
    COLLECTED,
    ENDED,
    FOLLOWING,
    LEFT,
    REPORTING,
    Adopt,
    Attempt,
    Decision,
    EndFirst,
    Fresh,
    HeldError,
    Lease,
    LedgerRecord,
    Note,
    OutputPosition,
    decide,
    parse_attempt,
    parse_lease,
    read_lease,
)
from dagster_slurm_components.jobs.owner import Owner, this_owner

OURS = Owner("r1", "n1", "pid:[1]", 7, "7-boot")
THEIRS = replace(OURS, run_id="r2", pid=8)
GONE = replace(OURS, run_id="r0")
ROOT = Path(__file__).parents[2]


def attempt(number: int, state: str = FOLLOWING, outcome: str | None = None, **changes: object) -> Attempt:
    lease = Lease(epoch=1, state=state, digest="d1", owner=GONE, outcome=outcome)
    return Attempt(number, f"/w/{number}", replace(lease, **changes), LedgerRecord("t", "12", 6.0))  # type: ignore[arg-type]


def decision(attempts: Sequence[Attempt]) -> Decision:
    return decide(
        attempts,
        unwanted=lambda lease: None if lease.digest == "d1" else "it has other content",
        released=lambda owner: owner == GONE,
    )


FAILED = attempt(0, ENDED, "FAILED")
DONE = attempt(0, COLLECTED, "COMPLETED")
NOT_COLLECTED = attempt(0, ENDED, "COMPLETED")


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([], Fresh(0)),
        ([FAILED], Fresh(1)),
        ([attempt(0, CANCELLED)], Fresh(1)),
        ([attempt(0, CANCELLED, "CANCELLED")], Fresh(1)),
        ([DONE], Fresh(1)),
        ([FAILED, attempt(1, ENDED, "TIMEOUT"), attempt(7, CANCELLED)], Fresh(8)),
        ([attempt(0)], Adopt(attempt(0))),
        ([NOT_COLLECTED], Adopt(NOT_COLLECTED)),
        ([FAILED, attempt(1)], Adopt(attempt(1))),
        ([DONE, attempt(1)], Adopt(attempt(1))),
        ([attempt(0, owner=None)], Adopt(attempt(0, owner=None))),
        ([attempt(0, digest="d2")], EndFirst(attempt(0, digest="d2"), "it has other content")),
        (
            [attempt(0, ENDED, "COMPLETED", digest="d2")],
            EndFirst(attempt(0, ENDED, "COMPLETED", digest="d2"), "it has other content"),
        ),
        ([FAILED, attempt(1, digest="d2")], EndFirst(attempt(1, digest="d2"), "it has other content")),
        ([attempt(0, ENDED, "FAILED", digest="d2")], Fresh(1)),
        ([attempt(0, CANCEL_WANTED)], EndFirst(attempt(0, CANCEL_WANTED), "it was to be cancelled")),
        ([attempt(0, owner=None, digest="")], EndFirst(attempt(0, owner=None, digest=""), "it has other content")),
        # What was left is for whoever comes, and what is being reported is over.
        ([attempt(0, LEFT, owner=THEIRS)], Adopt(attempt(0, LEFT, owner=THEIRS))),
        (
            [attempt(0, LEFT, owner=THEIRS, digest="d2")],
            EndFirst(attempt(0, LEFT, owner=THEIRS, digest="d2"), "it has other content"),
        ),
        ([attempt(0, REPORTING, "COMPLETED", owner=THEIRS)], Fresh(1)),
        ([attempt(0, REPORTING, "FAILED", owner=THEIRS), attempt(1)], Adopt(attempt(1))),
        # What is over is nobody's any more, whoever made it.
        ([attempt(0, ENDED, "FAILED", owner=THEIRS)], Fresh(1)),
        ([attempt(0, COLLECTED, "COMPLETED", owner=THEIRS)], Fresh(1)),
        ([attempt(0, CANCELLED, owner=THEIRS)], Fresh(1)),
    ],
)  # fmt: skip
def test_what_is_to_be_done_before_a_call_is_run(attempts: list[Attempt], expected: Decision) -> None:
    assert decision(attempts) == expected


@pytest.mark.parametrize(
    "attempts",
    [
        [attempt(0, owner=THEIRS)],
        [attempt(0, owner=THEIRS, digest="d2")],
        [attempt(0, CANCEL_WANTED, owner=THEIRS)],
        [attempt(0, ENDED, "COMPLETED", owner=THEIRS)],
        [FAILED, attempt(1, owner=THEIRS)],
    ],
    ids=["lives", "of other content", "being cancelled", "being collected", "a later attempt"],
)
def test_a_job_that_another_run_follows_is_theirs(attempts: list[Attempt]) -> None:
    with pytest.raises(HeldError, match="run r2 follows the job") as caught:
        decision(attempts)
    assert "terminate it in Dagster" in (caught.value.hint or "")


@pytest.mark.parametrize("attempts", [[attempt(0, newer=True)], [FAILED, attempt(1, newer=True)]])
def test_what_a_newer_release_wrote_is_left_alone(attempts: list[Attempt]) -> None:
    with pytest.raises(HeldError, match="newer release"):
        decision(attempts)


class TestText:
    """What the satellite writes is what is read here."""

    def written(self) -> dict[str, object]:
        note = Note({"lost": 1}, {"mem": "1M"}, {"raw": "r0"}, "staging", "train")
        lease = leases._new("t0", "d1", "c1", asdict(OURS), asdict(note))
        return {
            **lease,
            "shown": asdict(OutputPosition({"stdout.log": 5}, {"stdout.log": 9})),
            "renewed": 17.5,
        }

    def test_a_lease_is_read_back_as_it_was(self) -> None:
        written = {**self.written(), "state": "ended", "outcome": "COMPLETED", "finished": 18.5}
        expected = Lease(
            epoch=1,
            state=ENDED,
            digest="d1",
            owner=OURS,
            renewed=17.5,
            outcome="COMPLETED",
            finished=18.5,
            shown=OutputPosition({"stdout.log": 5}, {"stdout.log": 9}),
            note=Note({"lost": 1}, {"mem": "1M"}, {"raw": "r0"}, "staging", "train"),
        )
        assert parse_lease(json.loads(json.dumps(written))) == expected
        assert read_lease(json.dumps(written).encode()) == expected
        assert expected.succeeded
        assert expected.open

    def test_an_attempt_is_read_with_its_ledger(self) -> None:
        files = AttemptFiles(
            "/w/runs/r/ü\udcff/call=1/12", self.written(), "token=t0\nintent=5\njob_id=9\nsubmitted=6\n"
        )
        found = parse_attempt(files)
        assert (found.number, found.run_dir, found.step) == (12, files.run_dir, "train")
        assert found.ledger == LedgerRecord("t0", "9", 6.0)

    @pytest.mark.parametrize(
        "text",
        [
            '{"version": 2}',
            '{"version": 99, "epoch": "many", "owner": 7}',
            "",
            "[]",
            '{"version": 1}',
            "\0\0",
        ],
    )
    def test_one_of_a_newer_release_or_a_damaged_one_says_no_more_than_that(self, text: str) -> None:
        """D21: a record of a newer release raised TypeError, and retries could not begin."""
        assert read_lease(text.encode()) == (Lease() if text == "" else Lease(newer=True))

    def test_without_one_nothing_is_known(self) -> None:
        assert parse_lease(None) == Lease()
        assert Lease().open

    @pytest.mark.parametrize("state", [FOLLOWING, CANCEL_WANTED, CANCELLED, ENDED, COLLECTED, LEFT])
    @pytest.mark.parametrize("outcome", [None, "COMPLETED", "FAILED", "LOST", "REFUSED"])
    def test_satellite_and_project_agree_on_what_is_open(self, state: str, outcome: str | None) -> None:
        written = {**self.written(), "state": state, "outcome": outcome}
        assert parse_lease(written).open == leases.is_open(written)

    @pytest.mark.parametrize("outcome", ["COMPLETED", "FAILED"])
    def test_what_is_being_reported_is_listed_and_in_nobody_s_way(self, outcome: str) -> None:
        written = {**self.written(), "state": REPORTING, "outcome": outcome}
        assert leases.is_open(written)
        assert not parse_lease(written).open


def test_known_dead_needs_the_same_machine_namespace_and_start() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner.of("r", process.pid)
    assert not owner.known_dead()
    process.communicate(b"\n")
    assert owner.known_dead()
    assert not replace(owner, node="elsewhere").known_dead()
    assert not replace(owner, pid_namespace="pid:[1]").known_dead()
    living = Owner.of("r", os.getpid())
    assert not living.known_dead()
    assert replace(living, start="0-other boot").known_dead(), "another process has its number"


def test_in_another_pid_namespace_of_this_machine_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """D11: containers with the host's name share its boot, and not its processes."""
    owner = Owner("r", os.uname().nodename, jobs_owner.pid_namespace(), 2**22 - 1, "0-no such boot")
    assert owner.known_dead()
    monkeypatch.setattr(jobs_owner, "pid_namespace", lambda: "pid:[4026539999]")
    assert not owner.known_dead()
    assert Owner.of("r", os.getpid()).pid_namespace == "pid:[4026539999]"


def test_a_living_process_of_this_machine_is_not_dead_for_a_container(
    tmp_path: Path, unshare: list[str]
) -> None:
    """D11, as it was found: the same host name and boot, and a number that means something else there."""
    owner = Owner.of("r", os.getpid())
    program = tmp_path / "inside.py"
    program.write_text(
        "import json, os, sys\n"
        "from dagster_slurm_components.jobs.lease import Owner\n"
        "outer = Owner(**json.loads(sys.argv[1]))\n"
        "inner = Owner.of('r', os.getpid())\n"
        "print(json.dumps([outer.node == inner.node, outer.known_dead(), inner.known_dead(), inner.pid_namespace]))\n"
    )
    done = subprocess.run(
        [*unshare, sys.executable, str(program), json.dumps(asdict(owner))],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    same_node, outer_dead, inner_dead, namespace = json.loads(done.stdout)
    assert (same_node, outer_dead, inner_dead) == (True, False, False)
    assert namespace != owner.pid_namespace
    # And the other way round: what lived there is gone, which nobody can tell from here.
    assert not replace(owner, pid_namespace=namespace, start="0-gone").known_dead()


def _owner(step_worker: bool, told: multiprocessing.queues.Queue[int]) -> None:
    told.put(this_owner("r", step_worker=step_worker).pid)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("step_worker", [True, False])
def test_the_owner_is_the_run_worker_however_a_step_s_process_was_started(
    method: str, step_worker: bool
) -> None:
    """With ``forkserver`` the parent that the kernel knows is the server."""
    context = multiprocessing.get_context(method)
    told = context.Queue()
    process = context.Process(target=_owner, args=(step_worker, told))
    process.start()
    pid = told.get(timeout=PATIENCE)
    process.join()
    assert pid == (os.getpid() if step_worker else process.pid)


def test_the_owner_in_a_run_s_only_process_is_that_process() -> None:
    for step_worker in (True, False):
        owner = this_owner("r", step_worker=step_worker)
        assert (owner.pid, owner.run_id, owner.node) == (os.getpid(), "r", os.uname().nodename)
        assert owner == Owner.of("r", os.getpid())
