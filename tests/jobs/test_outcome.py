"""How a job ended, where its sources disagree."""

from __future__ import annotations

import pytest

from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.outcome import judge
from dagster_slurm_components.jobs.reconcile import Evidence, Observation
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
