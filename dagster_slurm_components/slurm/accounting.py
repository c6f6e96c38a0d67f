"""What Slurm's accounting remembers: ``sacct``, one query for allocations and their steps.

``--allocations`` would be shorter but hides the memory: MaxRSS is kept on the ``.batch`` and step rows only.
``--duplicates`` shows every start of a requeued job, so that the latest is chosen here, by its submit time,
and not by whatever order the database answers in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dagster_slurm_components.slurm import states
from dagster_slurm_components.slurm.ids import is_job_id, join_job_ids
from dagster_slurm_components.slurm.queue import check_name
from dagster_slurm_components.units import (
    parse_count,
    parse_duration,
    parse_epoch,
    parse_exit_code,
    parse_size,
)

MAX_IDS = 100
"""How many ids to ask for in one call: calls with more than 200 hung on a large site (Parsl issue 3814)."""

# All of them exist since 20.11; one unknown name would make sacct refuse the whole query. The job's name
# isn't asked for, because it may hold bars and line breaks.
_COLUMNS = (
    *("JobID", "State", "ExitCode", "DerivedExitCode", "Partition", "NNodes", "AllocCPUS", "ElapsedRaw"),
    *(
        "TimelimitRaw",
        "Submit",
        "Start",
        "End",
        "TotalCPU",
        "MaxRSS",
        "ReqMem",
        "AllocTRES",
        "TRESUsageInTot",
    ),
    *("Reason", "NodeList"),
)
_ARGUMENTS = (
    "--duplicates",
    "--noheader",
    "--parsable2",
    "--noconvert",
    f"--format={','.join(_COLUMNS)}",
)


@dataclass(frozen=True)
class StepRow:
    """One step of a job.

    Attributes:
        step: ``batch`` (the script), ``extern``, ``interactive``, or the number of an ``srun``.
        state: The state's long name.
        exit_code: Its exit code.
        signal: The signal that ended it, if one did.
        elapsed_s: How long it ran, in seconds.
        total_cpu_s: CPU time of all its processes, in seconds.
        max_rss_bytes: The most memory one of its tasks held. ``None`` for steps shorter than a sampling
            interval.
        used_memory_bytes: The same, summed over its tasks.
        nodes: Its node list in Slurm's compact form.
    """

    step: str
    state: str
    exit_code: int | None
    signal: int | None
    elapsed_s: int | None
    total_cpu_s: float | None
    max_rss_bytes: int | None
    used_memory_bytes: int | None
    nodes: str


@dataclass(frozen=True)
class AccountingRow:
    """One job, as the accounting has it, with its steps.

    Attributes:
        job_id: ``123``, ``123_4`` or ``123+0``.
        state: The state's long name, such as ``OUT_OF_MEMORY``; see ``states.state``.
        exit_code: Exit code of the batch script.
        signal: The signal that ended it, if one did; 125 stands for the memory killer, 53 for an output file
            that could not be opened.
        derived_exit_code: The highest exit code of its ``srun`` steps.
        partition: The partition it ran in.
        nodes: Its node list in Slurm's compact form, empty if it never had one; see
            ``hostlist.expand_hostlist``.
        num_nodes: How many nodes it had, or asked for.
        alloc_cpus: How many CPUs it had, or asks for.
        gpus: How many GPUs it had.
        elapsed_s: How long it ran, in seconds.
        time_limit_s: Its time limit, in seconds; ``None`` for none.
        submit: When it was submitted, or last requeued, in seconds since 1970.
        start: When it started.
        end: When it ended.
        total_cpu_s: CPU time of all its processes, in seconds.
        max_rss_bytes: The most memory one task of any step held.
        used_memory_bytes: The most memory all tasks of one step held together.
        req_mem_bytes: The memory of the whole allocation: what it got, or else what it asked for.
        restarts: How many earlier starts of this job the accounting shows.
        cancelled_by: The user id that cancelled it.
        reason: Why it last waited, also for a job that is over, or ``None``.
        steps: Its steps, in the order sacct shows them.
    """

    job_id: str
    state: str
    exit_code: int | None = None
    signal: int | None = None
    derived_exit_code: int | None = None
    partition: str = ""
    nodes: str = ""
    num_nodes: int | None = None
    alloc_cpus: int | None = None
    gpus: int = 0
    elapsed_s: int | None = None
    time_limit_s: int | None = None
    submit: int | None = None
    start: int | None = None
    end: int | None = None
    total_cpu_s: float | None = None
    max_rss_bytes: int | None = None
    used_memory_bytes: int | None = None
    req_mem_bytes: int | None = None
    restarts: int = 0
    cancelled_by: int | None = None
    reason: str | None = None
    steps: tuple[StepRow, ...] = ()


def sacct(job_ids: Sequence[str], *, since: int) -> list[str]:
    """Return the command that asks the accounting for these jobs.

    Args:
        job_ids: At most ``MAX_IDS``.
        since: A time before the first of them was submitted, in seconds since 1970. Without one, sacct
            searches from midnight and would miss yesterday's jobs. It also keeps an old job of the same id
            out, where a cluster's ids began anew.

    Raises:
        DagsterSlurmError: An id is no job id, or there is none.
    """
    return ["sacct", *_ARGUMENTS, f"--starttime={_time(since)}", f"--jobs={join_job_ids(job_ids)}"]


def sacct_by_name(name: str, *, since: int) -> list[str]:
    """Return the command that asks the accounting for the jobs of exactly this name.

    Raises:
        DagsterSlurmError: The name holds a comma or is empty.
    """
    check_name(name)
    return ["sacct", *_ARGUMENTS, f"--starttime={_time(since)}", f"--name={name}"]


def parse_sacct(out: str) -> dict[str, AccountingRow]:
    """Read sacct's answer: the latest start of each job, by job id. Lines that are no row are skipped.

    A job that is missing here may only be late (the accounting lags by seconds, at times by hours), and the
    query must have been good: ask ``replies.query_failure`` first.
    """
    starts: dict[str, list[_Start]] = {}
    for fields in _rows(out):
        job_id, _, step = fields["JobID"].partition(".")
        if not is_job_id(job_id):
            continue
        if not step:
            starts.setdefault(job_id, []).append(_Start(fields, []))
        elif job_id in starts:
            starts[job_id][-1].steps.append(_step(step, fields))
    return {job_id: _job(job_id, found) for job_id, found in starts.items()}


@dataclass(frozen=True)
class _Start:
    """One start of a job: its allocation row and the step rows that follow it."""

    fields: dict[str, str]
    steps: list[StepRow]

    def order(self) -> tuple[int, int]:
        return parse_epoch(self.fields["Submit"]) or 0, parse_epoch(self.fields["Start"]) or 0


def _time(since: int) -> str:
    # "uts" is understood by every version; slurmdbd refuses values below a million.
    return f"uts{max(int(since), 1_000_000)}"


def _rows(out: str) -> Iterator[dict[str, str]]:
    for line in out.split("\n"):
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == len(_COLUMNS):
            yield dict(zip(_COLUMNS, fields, strict=True))


def _job(job_id: str, starts: Sequence[_Start]) -> AccountingRow:
    # max() keeps the first of equals: reversed, the row that sacct shows last wins.
    latest = max(reversed(starts), key=_Start.order)
    fields, steps = latest.fields, tuple(latest.steps)
    exit_code, signal = parse_exit_code(fields["ExitCode"])
    num_nodes, cpus = parse_count(fields["NNodes"]), parse_count(fields["AllocCPUS"])
    limit = parse_count(fields["TimelimitRaw"])
    cancelled_by = re.search(r"by ([0-9]{1,10})", fields["State"])
    total_cpu = parse_duration(fields["TotalCPU"])
    return AccountingRow(
        job_id=job_id,
        state=states.state(fields["State"]).name,
        exit_code=exit_code,
        signal=signal,
        derived_exit_code=parse_exit_code(fields["DerivedExitCode"])[0],
        partition=fields["Partition"],
        nodes=_nodes(fields),
        num_nodes=num_nodes,
        alloc_cpus=cpus,
        gpus=_gpus(fields["AllocTRES"]),
        elapsed_s=parse_count(fields["ElapsedRaw"]),
        time_limit_s=None if limit is None else limit * 60,
        submit=parse_epoch(fields["Submit"]),
        start=parse_epoch(fields["Start"]),
        end=parse_epoch(fields["End"]),
        total_cpu_s=total_cpu or _sum(step.total_cpu_s for step in steps),
        max_rss_bytes=_most(step.max_rss_bytes for step in steps),
        used_memory_bytes=_most(step.used_memory_bytes for step in steps),
        req_mem_bytes=_asked_memory(fields, num_nodes, cpus),
        restarts=len(starts) - 1,
        cancelled_by=int(cancelled_by[1]) if cancelled_by else None,
        reason=None if fields["Reason"] in {"", "None", "(null)"} else fields["Reason"],
        steps=steps,
    )


def _step(step: str, fields: dict[str, str]) -> StepRow:
    exit_code, signal = parse_exit_code(fields["ExitCode"])
    max_rss = parse_size(fields["MaxRSS"])
    used = parse_size(_tres(fields["TRESUsageInTot"]).get("mem", ""))
    return StepRow(
        step=step,
        state=states.state(fields["State"]).name,
        exit_code=exit_code,
        signal=signal,
        elapsed_s=parse_count(fields["ElapsedRaw"]),
        total_cpu_s=parse_duration(fields["TotalCPU"]),
        max_rss_bytes=max_rss,
        used_memory_bytes=max_rss if used is None else used,
        nodes=_nodes(fields),
    )


def _nodes(fields: dict[str, str]) -> str:
    return "" if fields["NodeList"] in {"None assigned", "(null)", "None"} else fields["NodeList"]


def _tres(text: str) -> dict[str, str]:
    """Read trackable resources: ``cpu=4,gres/gpu=2,mem=800M``."""
    return {name: value for name, _, value in (part.partition("=") for part in text.split(",")) if value}


def _gpus(alloc_tres: str) -> int:
    """Count the GPUs; some sites account for ``gres/gpu`` and its types, some for the types only."""
    tres = _tres(alloc_tres)
    if "gres/gpu" in tres:
        return parse_count(tres["gres/gpu"]) or 0
    return sum(parse_count(count) or 0 for name, count in tres.items() if name.startswith("gres/gpu:"))


def _asked_memory(fields: dict[str, str], num_nodes: int | None, cpus: int | None) -> int | None:
    """Find the memory of the whole allocation.

    AllocTRES has what it got, which also answers ``--mem=0`` (all of a node). ReqMem is for the whole job
    since 21.08 (``4G``); before, it was per node (``4Gn``) or per CPU (``4Gc``).
    """
    allocated = parse_size(_tres(fields["AllocTRES"]).get("mem", ""), default_unit="M")
    if allocated:
        return allocated
    text, factor = fields["ReqMem"], 1
    if text.endswith("n"):
        text, factor = text[:-1], num_nodes or 1
    elif text.endswith("c"):
        text, factor = text[:-1], cpus or 1
    size = parse_size(text, default_unit="M")
    return size * factor if size else None


def _most(values: Iterator[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _sum(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
