"""squeue and scancel: the commands, and their answers from a real Slurm 22.05."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.slurm.commands import scancel, scancel_failure
from dagster_slurm_components.slurm.queue import QueueRow, parse_squeue, squeue
from dagster_slurm_components.slurm.replies import query_failure

DATA = Path(__file__).parent / "data"
CONNECT = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"


def test_the_command_does_not_depend_on_the_jobs() -> None:
    argv = squeue()
    assert argv[0] == "squeue"
    assert {"--me", "--all", "--states=all", "--noheader"} <= set(argv)
    assert not any("--jobs" in word or "--json" in word or "--only-job-state" in word for word in argv)


def test_by_name() -> None:
    assert squeue("dg-4f2")[-1] == "--name=dg-4f2"
    for name in ("", "a,b", "a b", "a\nb"):
        with pytest.raises(DagsterSlurmError):
            squeue(name)


def test_rows_of_a_real_queue() -> None:
    rows = parse_squeue((DATA / "squeue.txt").read_text())
    assert rows["119"] == QueueRow(
        job_id="119",
        state="RUNNING",
        reason=None,
        start=1795367857,
        restarts=0,
        requeue=True,
    )
    assert {"121_1", "121_[3-5%2]", "122+0", "122+1"} <= set(rows)
    assert (rows["121_[3-5%2]"].reason, rows["121_[3-5%2]"].start) == ("JobArrayTaskLimit", None)
    assert (rows["142"].state, rows["142"].restarts, rows["142"].reason) == ("PENDING", 1, "BeginTime")
    assert (rows["149"].state, rows["149"].reason, rows["149"].requeue) == ("NODE_FAIL", "NodeDown", False)
    assert rows["150"].reason == "ReqNodeNotAvail, UnavailableNodes:node1"
    assert rows["132"].reason is not None
    assert rows["132"].reason.endswith("(closed allows nobody not lab)")
    assert rows["87"].state == "FAILED"
    assert len(rows) == len((DATA / "squeue.txt").read_text().splitlines())


def test_a_reason_may_hold_bars_and_other_lines_do_no_harm() -> None:
    text = "CLUSTER: lab\n\n7|PENDING|N/A|0|1|a|b|c|\nsqueue: error: x\n8|RUNNING|p\n|||||||||\n"
    assert {job_id: row.reason for job_id, row in parse_squeue(text).items()} == {"7": "a|b|c"}


def test_cluster_names_may_stand_before_the_rows() -> None:
    assert parse_squeue("CLUSTER: lab\n1|CD|6|0|0|None|\n")["1"].state == "COMPLETED"


@given(st.text() | st.text("0123|_[]%\n ACD"))
def test_no_text_breaks_the_parsers(text: str) -> None:
    parse_squeue(text)
    scancel_failure(1, text)
    query_failure(1, text, text)


@pytest.mark.parametrize(
    ("returncode", "out", "err", "failed"),
    [
        (0, "", "", False),  # no job of this user: an answer
        (0, "1|CD|...\n", "squeue: error: _parse_next_key: unknown key Foo in slurm.conf\n", False),
        (0, "", "squeue: error: _parse_next_key: unknown key Foo in slurm.conf\n", False),
        (1, "", CONNECT, True),
        (1, "1|CD|...\n", CONNECT, True),
        (0, "", "sacct: error: Problem talking to the database: Connection refused\n", True),
        (1, "", "sacct: error: Problem talking to the database: Connection refused\n", True),
        (1, "", "slurm_load_jobs error: Rate limit exceeded, please retry momentarily\n", True),
        (127, "", "env: 'squeue': No such file or directory\n", True),
        (-9, "", "", True),
        (None, "", "", True),
        (1, "", "", True),
    ],
)
def test_a_failed_query_is_no_observation(returncode: int | None, out: str, err: str, failed: bool) -> None:
    assert (query_failure(returncode, out, err) is not None) == failed


def test_a_failure_says_what_the_program_said() -> None:
    assert query_failure(1, "", "squeue: error: one\nsqueue: error: two\n") == "two"
    assert query_failure(-15, "", "") == "ended by signal 15"
    assert query_failure(None, "", "") == "no answer in time"


def test_scancel_takes_ids_only() -> None:
    assert scancel(["1", "2_3"]) == ["scancel", "1", "2_3"]
    for bad in ([], ["--user=root"], ["1", ""], ["1 2"]):
        with pytest.raises(DagsterSlurmError):
            scancel(bad)


@pytest.mark.parametrize(
    ("returncode", "err", "failure"),
    [
        (0, "", None),
        (1, "scancel: error: Kill job error on job id 113: Invalid job id specified\n", None),
        (
            1,
            "scancel: error: Kill job error on job id 5: Job/step already completing or completed\n"
            "scancel: error: Kill job error on job id 6: Access/permission denied\n",
            "job 6: Access/permission denied",
        ),
        (
            8,
            "scancel: error: Kill job error on job id 145: Unable to contact slurm controller (connect failure)\n",
            "job 145: Unable to contact slurm controller (connect failure)",
        ),
        (None, "", "no answer in time"),
        (2, "", "scancel ended with 2"),
        (127, "env: 'scancel': No such file\n", "env: 'scancel': No such file"),
    ],
)
def test_scancel_answers(returncode: int | None, err: str, failure: str | None) -> None:
    assert scancel_failure(returncode, err) == failure
