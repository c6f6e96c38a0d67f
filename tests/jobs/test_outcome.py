"""How a job ended, where its sources disagree."""

from __future__ import annotations

import pytest

from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.outcome import judge
from dagster_slurm_components.jobs.reconcile import Evidence, Observation
from dagster_slurm_components.jobs.status import parse_status
from dagster_slurm_components.slurm.accounting import AccountingRow
from dagster_slurm_components.slurm.states import Phase


@pytest.mark.parametrize(
    ("accounting", "state", "code", "kind", "words"),
    [
        (None, "TIMEOUT", 143, "timeout", "reached its time limit"),
        ("TIMEOUT", "TIMEOUT", 143, "timeout", "reached its time limit"),
        ("RUNNING", "TIMEOUT", 143, "timeout", "reached its time limit"),
        ("OUT_OF_MEMORY", "FAILED", 137, "out_of_memory", "more memory than it asked for"),
        ("FAILED", "FAILED", 137, None, "exit code 137 (signal SIGKILL)"),
        ("FAILED", "FAILED", 200, None, "exit code 200."),
        ("RUNNING", "FAILED", 3, None, "exit code 3."),
        (None, "LOST", None, "lost", "left no trace"),
    ],
)
def test_the_source_that_knows_most_has_the_word(
    accounting: str | None, state: str, code: int | None, kind: str | None, words: str
) -> None:
    row = AccountingRow("7", accounting, nodes="n1") if accounting else None
    evidence = Evidence(accounting=row)
    outcome = judge(Ended(Observation(state=state, phase=Phase.TERMINAL, exit_code=code), evidence))
    assert (outcome.success, outcome.kind) == (False, kind)
    assert words in outcome.message


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ("phase=environment", 96, "The environment could not be activated on n1 (exit code 96)."),
        (
            "phase=staging",
            93,
            "What the payload works on could not be copied to the node on n1 (exit code 93).",
        ),
        (
            "phase=payload\nstaged=failed",
            93,
            "The payload ended well on n1. Not all that it made could be copied back.",
        ),
        (
            "phase=payload\nstaged=failed",
            3,
            "The payload ended with exit code 3 on n1. Not all that it made could be copied back.",
        ),
        ("phase=payload", 93, "The payload ended with exit code 93 on n1."),
    ],
)
def test_where_a_job_came_to_its_end(status: str, code: int, message: str) -> None:
    record = parse_status(f"restart=0\nhost=n1\n{status}\nexit={code}\n".encode())
    observation = Observation(state="FAILED", phase=Phase.TERMINAL, exit_code=code)
    assert judge(Ended(observation, Evidence(status=record))).message == message
