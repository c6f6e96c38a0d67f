"""What the log of a step says while a job's end is waited for: never the state that it had before."""

from __future__ import annotations

import pytest

from dagster_slurm_components.jobs.output import describe
from dagster_slurm_components.jobs.reconcile import Evidence, Observation, Patience, QueueAnswer, reconcile
from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.slurm.accounting import AccountingRow
from dagster_slurm_components.slurm.queue import QueueRow

RUNS = StatusRecord(started=1.0, host="n1")
STOPPED = StatusRecord(started=1.0, host="n1", exit_code=143, signals=("TERM",))
GONE = QueueAnswer(None, 10.0)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (Evidence(STOPPED), "Job 7 was stopped (exit code 143). Waiting for Slurm to say why."),
        (
            Evidence(STOPPED, accounting=AccountingRow("7", "PREEMPTED")),
            "Job 7 is PREEMPTED, says Slurm. Waiting to see whether Slurm starts it again.",
        ),
        (
            Evidence(RUNS, GONE),
            "Job 7 has left Slurm's queue without an exit code. Waiting for the accounting to say how it ended.",
        ),
        (
            Evidence(RUNS, GONE, AccountingRow("7", "NODE_FAIL")),
            "Job 7 is NODE_FAIL, says Slurm. Waiting to see whether Slurm starts it again.",
        ),
        (
            Evidence(RUNS, QueueAnswer(QueueRow("7", "COMPLETED"), 10.0)),
            "Job 7 is COMPLETED, says Slurm. Waiting for its exit code.",
        ),
        (
            Evidence(RUNS, QueueAnswer(QueueRow("7", "COMPLETING"), 10.0)),
            "Job 7 is COMPLETING: The job's script is over; Slurm ends what is left on the nodes.",
        ),
    ],
)
def test_what_is_waited_for(evidence: Evidence, words: str) -> None:
    running = reconcile(Observation(), Evidence(RUNS), 5.0, Patience())
    seen = reconcile(running, evidence, 10.0, Patience())
    assert not seen.terminal
    assert describe("7", seen, evidence.status) == words
