"""sacct, what a job's end means, and its figures."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.slurm.accounting import (
    AccountingRow,
    parse_sacct,
    sacct,
    sacct_by_name,
)
from dagster_slurm_components.slurm.outcome import last_words, outcome
from dagster_slurm_components.slurm.states import Phase

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
    fields = (job_id, state, exit_code, "p", "2", "8", "60", "10", submit, start)
    return "|".join((*fields, "00:30.000", "", req_mem, alloc_tres, "", nodes)) + "\n"


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
    assert row.start == 1795367857
    assert row.total_cpu_s == 1.478
    assert row.used_memory_bytes == 454832128
    assert row.req_mem_bytes == 800 * MIB


def test_gpus_and_energy_are_in_what_was_allocated() -> None:
    tres = "billing=8,cpu=8,energy=7200000,gres/gpu=2,gres/gpu:a100=2,mem=4G,node=2"
    row = parse_sacct(line(alloc_tres=tres))["1"]
    assert (row.alloc_gpus, row.energy_j) == (2, 7_200_000)
    assert row.hours(row.alloc_gpus) == 2 / 60
    assert row.hours(None) is None
    unmetered = parse_sacct(line(alloc_tres="cpu=8,energy=0,mem=4G"))["1"]
    assert (unmetered.alloc_gpus, unmetered.energy_j) == (None, None)


def test_ids_of_arrays_and_components() -> None:
    assert {"121_1", "121_5", "122+0", "122+1"} <= set(ROWS)


def test_f21_of_several_starts_the_latest_counts() -> None:
    assert (ROWS["142"].state, ROWS["142"].restarts) == ("COMPLETED", 1)
    assert (ROWS["145"].state, ROWS["145"].restarts, ROWS["145"].start) == ("PENDING", 1, None)
    assert (ROWS["150"].state, ROWS["150"].restarts) == ("PENDING", 1)
    older, newer = line(state="PREEMPTED", submit="100"), line(state="COMPLETED", submit="150")
    for text in (older + newer, newer + older):
        assert parse_sacct(text)["1"].state == "COMPLETED"
    assert parse_sacct(line(state="REQUEUED") + line(state="COMPLETED"))["1"].state == "COMPLETED"


def test_steps_belong_to_their_own_start() -> None:
    step = line("1.0", state="OUT_OF_MEMORY")
    older, newer = line(state="PREEMPTED", submit="100"), line(state="FAILED", submit="150")
    assert not parse_sacct(older + step + newer)["1"].out_of_memory_step
    assert parse_sacct(older + newer + step)["1"].out_of_memory_step
    assert ROWS["142"].used_memory_bytes is not None


def test_who_cancelled() -> None:
    assert (ROWS["138"].state, ROWS["138"].cancelled_by) == ("CANCELLED", 0)
    assert parse_sacct(line(state="CANCELLED by 1000"))["1"].cancelled_by == 1000
    assert parse_sacct(line(state="CANCELLED+"))["1"].cancelled_by is None


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


@given(st.lists(st.text("0123KMG:-.%+_nc,=abcU", max_size=8), min_size=16, max_size=16))
def test_no_row_breaks_parser_figures_or_outcome(fields: list[str]) -> None:
    for row in parse_sacct("|".join(["7", *fields[1:]])).values():
        assert row.node_hours is None or row.node_hours >= 0
        assert row.cpu_efficiency is None or 0 <= row.cpu_efficiency <= 1
        outcome(row)


@pytest.mark.parametrize(
    ("job_id", "stderr", "expected", "words"),
    [
        ("113", "", "COMPLETED", "exit code 0"),
        ("114", "", "FAILED", "exit code 3"),
        ("115", "", "FAILED", "signal 11 (SIGSEGV)"),
        ("116", "", "FAILED", "signal 9 (SIGKILL)"),
        ("116", KILLED_FOR_MEMORY, "OUT_OF_MEMORY", "300.0 MiB"),
        ("117", KILLED_FOR_MEMORY, "OUT_OF_MEMORY", "399.5 MiB"),
        ("129", "", "FAILED", "could not open the job's output file"),
        ("138", "", "CANCELLED", "user with id 0"),
        ("139", "", "TIMEOUT", "asked was 00:01:00"),
        ("149", "", "NODE_FAIL", "It ran on node1"),
        ("87", "", "FAILED", "never started"),
        ("145", "", None, "waits"),
        ("146", "", None, "runs"),
    ],
)
def test_endings_of_real_jobs(job_id: str, stderr: str, expected: str | None, words: str) -> None:
    ending = outcome(ROWS[job_id], last_words(stderr))
    assert (ending.name if ending.phase is Phase.TERMINAL else None) == expected
    assert words in ending.explanation
    assert ending.retryable == (expected == "NODE_FAIL")


@pytest.mark.parametrize(
    ("row", "stderr", "expected"),
    [
        (AccountingRow("1", "OUT_OF_MEMORY", 0, 125), "", "OUT_OF_MEMORY"),
        (AccountingRow("1", "FAILED", 0, 125), "", "OUT_OF_MEMORY"),
        (AccountingRow("1", "FAILED", 1, out_of_memory_step=True), "", "OUT_OF_MEMORY"),
        # a payload that survives a killed step, and ends well, ended well
        (AccountingRow("1", "COMPLETED", 0, out_of_memory_step=True), "", "COMPLETED"),
        (
            AccountingRow("1", "FAILED", 1),
            "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0. Some of the step tasks have been OOM Killed.",
            "OUT_OF_MEMORY",
        ),
        (AccountingRow("1", "FAILED", 1), "ValueError: exceeded memory limit", "FAILED"),
        (AccountingRow("1", "FAILED", 1), "print: oom-kill", "FAILED"),
        (
            AccountingRow("1", "CANCELLED"),
            "slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***",
            "PREEMPTED",
        ),
        (
            AccountingRow("1", "CANCELLED", cancelled_by=5),
            "slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***",
            "CANCELLED",
        ),
        (
            AccountingRow("1", "FAILED", 0, 15),
            "slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***",
            "TIMEOUT",
        ),
        (AccountingRow("1", "BOOT_FAIL"), "", "BOOT_FAIL"),
        (AccountingRow("1", "DEADLINE"), "", "DEADLINE"),
        (AccountingRow("1", "PREEMPTED"), "", "PREEMPTED"),
        (AccountingRow("1", "FOO"), "", None),
    ],
)
def test_causes_behind_vague_states(row: AccountingRow, stderr: str, expected: str | None) -> None:
    ending = outcome(row, last_words(stderr))
    assert (ending.name if ending.phase is Phase.TERMINAL else None) == expected
    assert ending.explanation


def test_figures_of_a_real_job() -> None:
    row = ROWS["118"]
    assert row.cpu_efficiency == pytest.approx(5.215 / (8 * 2))
    assert row.used_memory_bytes == 213762048
    assert row.req_mem_bytes == 500 * MIB
    assert row.node_hours == pytest.approx(8 / 3600)
    assert (row.elapsed_s, row.restarts) == (8, 0)


def test_figures_without_values() -> None:
    for row in (ROWS["145"], AccountingRow("1", "COMPLETED")):
        assert (row.node_hours, row.cpu_efficiency) == (None, None)
    assert replace(ROWS["118"], total_cpu_s=1e6).cpu_efficiency == 1
    assert replace(ROWS["118"], elapsed_s=0).cpu_efficiency is None


STEPD = "slurmstepd-node1: error: *** JOB 7 ON node1 CANCELLED AT 2026-01-01T00:00:00"
STEPD_26 = "[2026-11-30T08:47:30.915] error: *** JOB 7 ON node1 CANCELLED AT 2026-11-30T08:47:30"
"""As slurmstepd writes it in 26.05."""


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        ("", None),
        (f"{STEPD} DUE TO TIME LIMIT ***", "TIMEOUT"),
        (f"{STEPD} DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***", "NODE_FAIL"),
        (f"{STEPD} ***", "CANCELLED"),
        (f"{STEPD} DUE to SIGNAL Terminated ***", "CANCELLED"),
        (f"{STEPD} DUE TO JOB REQUEUE ***", None),
        ("slurmstepd: error: *** STEP 7.0 ON node1 CANCELLED AT 2026-01-01T00:00:00 ***", None),
        (f"print: {STEPD} DUE TO TIME LIMIT ***", None),
        (
            f"slurmstepd: error: Job 7 exceeded memory limit (9 > 8), being killed\n{STEPD} ***",
            "OUT_OF_MEMORY",
        ),
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks\n"
            f"{STEPD} DUE TO TIME LIMIT ***",
            "TIMEOUT",
        ),
        (f"{STEPD_26} DUE TO TIME LIMIT ***", "TIMEOUT"),
        (f"{STEPD_26} DUE TO PREEMPTION ***", "PREEMPTED"),
        (f"{STEPD_26} DUE to SIGNAL Killed ***", "CANCELLED"),
        (
            f"{STEPD_26} DUE to SIGNAL Killed ***\n"
            "[2026-11-30T08:47:30.940] error: StepId=2.batch exceeded memory limit (9 > 8), being killed",
            "OUT_OF_MEMORY",
        ),
        ("[2026-11-30T08:47:30.940] error: CUDA out of memory", None),
        ("[2026-11-30T08:47:30.940] error: the queue exceeded memory limit", None),
    ],
)
def test_the_daemon_s_last_words(stderr: str, words: str | None) -> None:
    assert last_words(stderr) == words
