"""sacct, what a job's end means, and its figures."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.slurm.accounting import (
    AccountingRow,
    StepRow,
    parse_sacct,
    sacct,
    sacct_by_name,
)
from dagster_slurm_components.slurm.metrics import metrics
from dagster_slurm_components.slurm.outcome import outcome
from dagster_slurm_components.slurm.states import Outcome

DATA = Path(__file__).parent / "data"
ROWS = parse_sacct((DATA / "sacct.txt").read_text())
MIB = 2**20

KILLED_FOR_MEMORY = (
    "slurmstepd-node1: error: StepId=116.batch exceeded memory limit (363331584 > 314572800), being killed\n"
    "slurmstepd-node1: error: Exceeded job memory limit\n"
    "slurmstepd-node1: error: *** JOB 116 ON node1 CANCELLED AT 2026-11-22T17:17:39 ***\n"
)


def line(
    job_id: str = "1",
    state: str = "COMPLETED",
    exit_code: str = "0:0",
    submit: str = "100",
    start: str = "200",
    req_mem: str = "",
    alloc_tres: str = "",
    nodes: str = "n1",
) -> str:
    fields = (job_id, state, exit_code, "0:0", "p", "2", "8", "60", "10", submit, start, "260")
    return "|".join((*fields, "00:30.000", "", req_mem, alloc_tres, "", "None", nodes)) + "\n"


def test_the_command() -> None:
    argv = sacct(["1", "2_3"], since=1795367857)
    assert argv[argv.index("sacct") + 1 :][0] == "--duplicates"
    assert argv[-2:] == ["--starttime=uts1795367857", "--jobs=1,2_3"]
    assert "-X" not in argv
    assert "--allocations" not in argv
    assert sacct_by_name("dg-1", since=0)[-2:] == ["--starttime=uts1000000", "--name=dg-1"]
    with pytest.raises(DagsterSlurmError):
        sacct([], since=0)


def test_only_columns_of_the_oldest_slurm_are_asked_for() -> None:
    columns = (
        next(word for word in sacct(["1"], since=0) if word.startswith("--format=")).split("=")[1].split(",")
    )
    newer = {"Restarts", "FailedNode", "SubmitLine", "Planned", "StdOut", "Extra", "Licenses"}
    assert not newer & set(columns)
    assert "JobName" not in columns


def test_a_job_with_steps_on_two_nodes() -> None:
    row = ROWS["119"]
    assert (row.state, row.exit_code, row.signal, row.nodes) == ("COMPLETED", 0, None, "node[1-2]")
    assert (row.num_nodes, row.alloc_cpus, row.elapsed_s, row.time_limit_s) == (2, 4, 6, 600)
    assert (row.submit, row.start, row.end) == (1795367857, 1795367857, 1795367863)
    assert row.total_cpu_s == 1.478
    assert row.max_rss_bytes == 113762304
    assert row.used_memory_bytes == 454832128
    assert row.req_mem_bytes == 800 * MIB
    assert [step.step for step in row.steps] == ["batch", "0", "1"]


def test_ids_of_arrays_and_components() -> None:
    assert {"121_1", "121_5", "122+0", "122+1"} <= set(ROWS)
    assert ROWS["121_3"].reason == "JobArrayTaskLimit"
    assert [step.step for step in ROWS["122+0"].steps] == ["batch"]


def test_f21_of_several_starts_the_latest_counts() -> None:
    assert (ROWS["142"].state, ROWS["142"].restarts, ROWS["142"].submit) == ("COMPLETED", 1, 1795367860)
    assert (ROWS["145"].state, ROWS["145"].restarts, ROWS["145"].start) == ("PENDING", 1, None)
    assert (ROWS["150"].state, ROWS["150"].restarts) == ("PENDING", 1)
    older, newer = line(state="PREEMPTED", submit="100"), line(state="COMPLETED", submit="150")
    for text in (older + newer, newer + older):
        assert parse_sacct(text)["1"].state == "COMPLETED"
    assert parse_sacct(line(state="REQUEUED") + line(state="COMPLETED"))["1"].state == "COMPLETED"


def test_steps_belong_to_their_own_start() -> None:
    assert [step.signal for step in ROWS["142"].steps] == [None]


def test_who_cancelled() -> None:
    assert (ROWS["138"].state, ROWS["138"].cancelled_by) == ("CANCELLED", 0)
    assert parse_sacct(line(state="CANCELLED by 1000"))["1"].cancelled_by == 1000
    assert parse_sacct(line(state="CANCELLED+"))["1"].cancelled_by is None


def test_gpus() -> None:
    assert ROWS["120"].gpus == 2
    assert parse_sacct(line(alloc_tres="cpu=1,gres/gpu:a100=3,gres/gpu=3"))["1"].gpus == 3
    assert parse_sacct(line(alloc_tres="cpu=1,gres/gpu:a100=3,gres/gpu:v100=1"))["1"].gpus == 4


@pytest.mark.parametrize(
    ("req_mem", "alloc_tres", "mebibytes"),
    [
        ("4Gn", "", 8192),  # 20.11: per node
        ("1Gc", "", 8192),  # 20.11: per CPU
        ("4G", "", 4096),  # since 21.08: of the whole job
        ("19800M", "", 19800),
        ("0n", "mem=64G,node=2", 65536),  # --mem=0: all of the nodes
        ("4G", "cpu=8,mem=5000M", 5000),
        ("", "", None),
        ("?", "mem=", None),
    ],
)
def test_asked_memory(req_mem: str, alloc_tres: str, mebibytes: int | None) -> None:
    row = parse_sacct(line(req_mem=req_mem, alloc_tres=alloc_tres))["1"]
    assert row.req_mem_bytes == (None if mebibytes is None else mebibytes * MIB)


@given(st.text() | st.text("0123|._+\n ABC", max_size=200))
def test_no_text_breaks_the_parser(text: str) -> None:
    parse_sacct(text)


@given(st.lists(st.text("0123KMG:-.%+_nc,=abcU", max_size=8), min_size=19, max_size=19))
def test_no_row_breaks_parser_metrics_or_outcome(fields: list[str]) -> None:
    for row in parse_sacct("|".join(["7", *fields[1:]])).values():
        metrics(row)
        outcome(row, "")


@pytest.mark.parametrize(
    ("job_id", "stderr", "expected", "words"),
    [
        ("113", "", Outcome.SUCCESS, "exit code 0"),
        ("114", "", Outcome.FAILED, "exit code 3"),
        ("115", "", Outcome.FAILED, "signal 11 (SIGSEGV)"),
        ("116", "", Outcome.FAILED, "signal 9 (SIGKILL)"),
        ("116", KILLED_FOR_MEMORY, Outcome.OUT_OF_MEMORY, "300.0 MiB"),
        ("117", KILLED_FOR_MEMORY, Outcome.OUT_OF_MEMORY, "399.5 MiB"),
        ("129", "", Outcome.FAILED, "could not open the job's output file"),
        ("138", "", Outcome.CANCELLED, "user with id 0"),
        ("139", "", Outcome.TIMEOUT, "asked was 00:01:00"),
        ("149", "", Outcome.NODE_FAILURE, "It ran on node1"),
        ("87", "", Outcome.FAILED, "never started"),
        ("145", "", None, "waits"),
        ("146", "", None, "runs"),
    ],
)
def test_endings_of_real_jobs(job_id: str, stderr: str, expected: Outcome | None, words: str) -> None:
    ending = outcome(ROWS[job_id], stderr)
    assert ending.outcome is expected
    assert words in ending.message
    assert ending.retryable == (expected is Outcome.NODE_FAILURE)


def step(state: str) -> StepRow:
    return StepRow("0", state, 0, 125, 5, 1.0, None, None, "n1")


@pytest.mark.parametrize(
    ("row", "stderr", "expected"),
    [
        (AccountingRow("1", "OUT_OF_MEMORY", 0, 125), "", Outcome.OUT_OF_MEMORY),
        (AccountingRow("1", "FAILED", 0, 125), "", Outcome.OUT_OF_MEMORY),
        (AccountingRow("1", "FAILED", 1, steps=(step("OUT_OF_MEMORY"),)), "", Outcome.OUT_OF_MEMORY),
        # a payload that survives a killed step, and ends well, ended well
        (AccountingRow("1", "COMPLETED", 0, steps=(step("OUT_OF_MEMORY"),)), "", Outcome.SUCCESS),
        (
            AccountingRow("1", "FAILED", 1),
            "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0. Some of the step tasks have been OOM Killed.",
            Outcome.OUT_OF_MEMORY,
        ),
        (AccountingRow("1", "FAILED", 1), "ValueError: exceeded memory limit", Outcome.FAILED),
        (AccountingRow("1", "FAILED", 1), "print: oom-kill", Outcome.FAILED),
        (
            AccountingRow("1", "CANCELLED"),
            "slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***",
            Outcome.PREEMPTED,
        ),
        (
            AccountingRow("1", "CANCELLED", cancelled_by=5),
            "slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***",
            Outcome.CANCELLED,
        ),
        (
            AccountingRow("1", "FAILED", 0, 15),
            "slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***",
            Outcome.TIMEOUT,
        ),
        (AccountingRow("1", "BOOT_FAIL"), "", Outcome.BOOT_FAILURE),
        (AccountingRow("1", "DEADLINE"), "", Outcome.DEADLINE),
        (AccountingRow("1", "PREEMPTED"), "", Outcome.PREEMPTED),
        (AccountingRow("1", "FOO"), "", None),
    ],
)
def test_causes_behind_vague_states(row: AccountingRow, stderr: str, expected: Outcome | None) -> None:
    ending = outcome(row, stderr)
    assert ending.outcome is expected
    assert ending.message


def test_metrics_of_a_real_job() -> None:
    found = metrics(ROWS["118"])
    assert found.cpu_efficiency == pytest.approx(5.215 / (8 * 2))
    assert found.max_memory_bytes == 213762048
    assert found.asked_memory_bytes == 500 * MIB
    assert found.memory_efficiency == pytest.approx(213762048 / (500 * MIB))
    assert found.node_hours == pytest.approx(8 / 3600)
    assert found.cpu_hours == pytest.approx(16 / 3600)
    assert (found.gpu_hours, found.queue_wait_s, found.elapsed_s, found.restarts) == (0, 0, 8, 0)
    assert metrics(ROWS["142"]).queue_wait_s == 11
    assert metrics(ROWS["120"]).gpu_hours == pytest.approx(6 / 3600)


def test_metrics_without_values() -> None:
    waiting = metrics(ROWS["145"])
    assert (waiting.queue_wait_s, waiting.elapsed_s, waiting.node_hours, waiting.cpu_efficiency) == (
        None,
    ) * 4
    assert metrics(AccountingRow("1", "COMPLETED")).as_dict() == {"restarts": 0}
    assert metrics(replace(ROWS["118"], total_cpu_s=1e6)).cpu_efficiency == 1
    assert metrics(replace(ROWS["118"], elapsed_s=0)).cpu_efficiency is None
