"""Rows of the fault matrix that are decided by reading what Slurm says."""

from __future__ import annotations

import pytest

from dagster_slurm_components.jobs.model import JobIdentity
from dagster_slurm_components.jobs.reconcile import Evidence, Observation, Patience, QueueAnswer, reconcile
from dagster_slurm_components.slurm.accounting import MAX_IDS, AccountingRow, sacct
from dagster_slurm_components.slurm.header import render_header
from dagster_slurm_components.slurm.outcome import outcome
from dagster_slurm_components.slurm.queue import QueueRow, parse_squeue, squeue
from dagster_slurm_components.slurm.reasons import explain
from dagster_slurm_components.slurm.states import Phase, state

PATIENCE = Patience(settle=15, explanation=30, absence=300, trace=900)
RUNNING = QueueRow(
    job_id="7",
    state="RUNNING",
    reason=None,
    start=None,
    restarts=0,
)


@pytest.mark.parametrize("late", [0, 5, 60, 200])
def test_f18_with_a_short_memory_of_the_controller_each_job_just_vanishes(late: int) -> None:
    seen = reconcile(Observation(), Evidence(queue=QueueAnswer(RUNNING, 0.0)), 0.0, PATIENCE)
    now = 20.0
    while now < 20 + late:
        seen = reconcile(seen, Evidence(queue=QueueAnswer(None, now)), now, PATIENCE)
        assert not seen.terminal
        now += 5
    books = AccountingRow(job_id="7", state="COMPLETED", exit_code=0)
    seen = reconcile(seen, Evidence(queue=QueueAnswer(None, now), accounting=books), now + 60, PATIENCE)
    assert (seen.terminal, seen.state) == (True, "COMPLETED")


@pytest.mark.parametrize("word", ["NODE_FAIL", "BOOT_FAIL", "PREEMPTED"])
def test_f24_what_a_node_did_may_be_tried_again_and_what_the_payload_did_may_not(word: str) -> None:
    assert outcome(AccountingRow(job_id="7", state=word, nodes="n1")).retryable
    assert not outcome(AccountingRow(job_id="7", state="FAILED", exit_code=1)).retryable


@pytest.mark.parametrize("word", ["BOOT_FAIL", "DEADLINE", "REVOKED", "RESV_DEL_HOLD", "SPECIAL_EXIT", "FOO"])
def test_f25_every_state_has_a_row(word: str) -> None:
    row = state(word)
    assert row.explanation
    assert word != "FOO" or row.phase is not Phase.TERMINAL


@pytest.mark.parametrize(
    ("reason", "permanence"),
    [
        ("JobHeldUser", "held"),
        ("JobHeldAdmin", "held"),
        ("DependencyNeverSatisfied", "never"),
        ("launch_failed_requeued_held", "held"),
        ("PartitionDown", "held"),
        ("ReqNodeNotAvail,_Reserved_for_maintenance", "wait"),
    ],
)
def test_f29_reasons_to_wait_say_whether_time_heals_them(reason: str, permanence: str) -> None:
    found = explain(reason)
    assert found.permanence == permanence
    assert found.text


def test_f38_ids_of_arrays_are_read_in_every_form() -> None:
    rows = "".join(f"{name}|PENDING||0|1|Resources|\n" for name in ("7_1", "7_[3-9%4]", "8+0", "9"))
    assert set(parse_squeue(rows)) == {"7_1", "7_[3-9%4]", "8+0", "9"}


def test_f39_the_command_line_is_bounded() -> None:
    assert len(" ".join(squeue())) < 1000
    ids = [str(9_000_000_000 + number) for number in range(MAX_IDS)]
    assert len(" ".join(sacct(ids, since=0))) < 4096


@pytest.mark.parametrize(
    "name", ["a b", "it's", "$(touch x);`id`", "line\nbreak", "grün-漢字", "-rf", "../.."]
)
def test_f45_hostile_names_become_harmless_ones(name: str) -> None:
    identity = JobIdentity(run_id="r", step=name, partition=name)
    assert "/.." not in f"/{identity.folder}"
    header = render_header([("job-name", identity.job_name)])
    assert len(header.splitlines()) == 2
