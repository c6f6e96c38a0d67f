"""What Slurm's accounting remembers: ``sacct``, one query for allocations and their steps.

``--allocations`` would be shorter but hides the memory: MaxRSS is kept on the ``.batch`` and step rows only.
``--duplicates`` shows every start of a requeued job, so that the latest is chosen here, by its submit time,
and not by whatever order the database answers in.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dagster_slurm_components import units
from dagster_slurm_components.slurm import states
from dagster_slurm_components.slurm.commands import check_job_ids, check_name, is_job_id

MAX_IDS = 100
"""How many ids to ask for in one call: calls with more than 200 hung on a large site (Parsl issue 3814)."""

NO_ACCOUNTING = "(?i)accounting storage is disabled"
"""Regular expression of what sacct says, in all versions, on a cluster that keeps no accounts."""

# All of them exist since 20.11; one unknown name would make sacct refuse the whole query. The job's name
# isn't asked for, because it may hold bars and line breaks.
_COLUMNS = (
    *("JobID", "State", "ExitCode", "Partition", "NNodes", "AllocCPUS", "ElapsedRaw", "TimelimitRaw"),
    *("Submit", "Start", "TotalCPU", "MaxRSS", "ReqMem", "AllocTRES", "TRESUsageInTot", "NodeList"),
)
_COMMAND = (
    "sacct",
    "--duplicates",
    "--noheader",
    "--parsable2",
    "--noconvert",
    f"--format={','.join(_COLUMNS)}",
)

_Fields = dict[str, str]


@dataclass(frozen=True)
class AccountingRow:
    """One job, as the accounting has it: its last start, with the figures of its steps.

    Attributes:
        job_id: ``123``, ``123_4`` or ``123+0``.
        state: The state's long name, such as ``OUT_OF_MEMORY``; see ``states.state``.
        exit_code: Exit code of the batch script.
        signal: The signal that ended it, if one did; 125 stands for the memory killer, 53 for an output file
            that could not be opened.
        nodes: Its node list in Slurm's compact form, empty if it never had one.
        num_nodes: How many nodes it had, or asked for; ``alloc_cpus`` likewise.
        start: When it started, in seconds since 1970.
        total_cpu_s: CPU time of all its processes.
        used_memory_bytes: The most memory all tasks of one step held together. Slurm samples it, so short peaks are
            missed; steps that ran side by side aren't added up.
        req_mem_bytes: The memory of the whole allocation: what it got, or else what it asked for.
        alloc_gpus: How many GPUs it had.
        energy_j: Energy that its nodes took meanwhile, that of other jobs there included; none where Slurm does not
            measure it. It is sacct's ``ConsumedEnergyRaw`` of a job, which it too reads in ``AllocTRES``.
        restarts: How many earlier starts of this job the accounting shows.
        cancelled_by: The user id that cancelled it.
    """

    job_id: str
    state: str
    exit_code: int | None = None
    signal: int | None = None
    partition: str = ""
    nodes: str = ""
    num_nodes: int | None = None
    alloc_cpus: int | None = None
    elapsed_s: int | None = None
    time_limit_s: int | None = None
    start: int | None = None
    total_cpu_s: float | None = None
    used_memory_bytes: int | None = None
    req_mem_bytes: int | None = None
    alloc_gpus: int | None = None
    energy_j: int | None = None
    restarts: int = 0
    cancelled_by: int | None = None
    out_of_memory_step: bool = False

    @property
    def node_hours(self) -> float | None:
        """Nodes times elapsed hours of the last start."""
        return self.hours(self.num_nodes)

    def hours(self, count: int | None) -> float | None:
        """Return so many of something, such as CPUs, times elapsed hours."""
        ran = None if self.start is None else self.elapsed_s
        return None if ran is None or count is None else count * ran / 3600

    @property
    def cpu_efficiency(self) -> float | None:
        """CPU time used, of CPUs times elapsed time: 0 to 1.

        Hardware threads that share a core and samples of short jobs may carry it past 1; it is cut there.
        """
        if self.start is None or self.total_cpu_s is None or not self.elapsed_s or not self.alloc_cpus:
            return None
        return min(1.0, self.total_cpu_s / (self.elapsed_s * self.alloc_cpus))


def sacct(job_ids: Sequence[str], *, since: int) -> list[str]:
    """Return the command that asks the accounting for these jobs, at most ``MAX_IDS``; their ids are checked.

    ``since`` is before the first of them was submitted, in seconds since 1970. Without it sacct searches from midnight
    and would miss yesterday's jobs; it also keeps an old job of the same id out, where a cluster's ids began anew.
    """
    check_job_ids(job_ids)
    return [*_COMMAND, _since(since), f"--jobs={','.join(job_ids)}"]


def sacct_by_name(name: str, *, since: int) -> list[str]:
    """Return the command that asks the accounting for the jobs of exactly this name, which is checked."""
    check_name(name)
    return [*_COMMAND, _since(since), f"--name={name}"]


def _since(epoch: int) -> str:
    # "uts" is understood by every version; slurmdbd refuses values below a million.
    return f"--starttime=uts{max(int(epoch), 1_000_000)}"


def parse_sacct(out: str) -> dict[str, AccountingRow]:
    """Read sacct's answer: the latest start of each job, by job id. Lines that are no row are skipped.

    A job that is missing here may only be late (the accounting lags by seconds, at times by hours), and the
    query must have been good: ask ``replies.query_failure`` first.
    """
    starts: dict[str, list[list[_Fields]]] = {}  # the row of each start and the rows of its steps
    for line in out.split("\n"):
        words = [word.strip() for word in line.split("|")]
        fields = dict(zip(_COLUMNS, words, strict=False))
        job_id, _, step = fields["JobID"].partition(".")
        if len(words) != len(_COLUMNS) or not is_job_id(job_id):
            continue
        if not step:
            starts.setdefault(job_id, []).append([fields])
        elif job_id in starts:
            starts[job_id][-1].append(fields)
    return {job_id: _job(job_id, of_job) for job_id, of_job in starts.items()}


def _job(job_id: str, starts: Sequence[Sequence[_Fields]]) -> AccountingRow:
    # max() keeps the first of equals: reversed, the row that sacct shows last wins.
    fields, *steps = max(reversed(starts), key=_order)
    exit_code, signal = units.parse_exit_code(fields["ExitCode"])
    limit = units.parse_count(fields["TimelimitRaw"])
    cancelled_by = re.search(r"by ([0-9]{1,10})", fields["State"])
    step_cpu = [cpu for step in steps if (cpu := units.parse_duration(step["TotalCPU"])) is not None]
    step_memory = [size for step in steps if (size := _step_memory(step)) is not None]
    return AccountingRow(
        job_id=job_id,
        state=states.state(fields["State"]).name,
        exit_code=exit_code,
        signal=signal,
        partition=fields["Partition"],
        nodes="" if fields["NodeList"] in {"None assigned", "(null)", "None"} else fields["NodeList"],
        num_nodes=units.parse_count(fields["NNodes"]),
        alloc_cpus=units.parse_count(fields["AllocCPUS"]),
        elapsed_s=units.parse_count(fields["ElapsedRaw"]),
        time_limit_s=None if limit is None else limit * 60,
        start=units.parse_epoch(fields["Start"]),
        total_cpu_s=units.parse_duration(fields["TotalCPU"]) or (sum(step_cpu) if step_cpu else None),
        used_memory_bytes=max(step_memory, default=None),
        req_mem_bytes=_asked_memory(fields),
        alloc_gpus=units.parse_count(_tres(fields["AllocTRES"], "gres/gpu")),
        energy_j=units.parse_count(_tres(fields["AllocTRES"], "energy")) or None,
        restarts=len(starts) - 1,
        cancelled_by=int(cancelled_by[1]) if cancelled_by else None,
        out_of_memory_step=any(states.state(step["State"]).name == "OUT_OF_MEMORY" for step in steps),
    )


def _order(start: Sequence[_Fields]) -> tuple[int, int]:
    return units.parse_epoch(start[0]["Submit"]) or 0, units.parse_epoch(start[0]["Start"]) or 0


def _step_memory(step: _Fields) -> int | None:
    # Summed over the step's tasks; MaxRSS is that of one task, and missing for steps shorter than a sampling interval.
    used = units.parse_size(_tres(step["TRESUsageInTot"], "mem"))
    return units.parse_size(step["MaxRSS"]) if used is None else used


def _tres(text: str, name: str) -> str:
    # cpu=4,gres/gpu=2,mem=800M
    return dict(part.partition("=")[::2] for part in text.split(",")).get(name, "")


def _asked_memory(fields: _Fields) -> int | None:
    """Find the memory of the whole allocation.

    AllocTRES has what it got, which also answers ``--mem=0`` (all of a node). ReqMem is for the whole job
    since 21.08 (``4G``); before, it was per node (``4Gn``) or per CPU (``4Gc``).
    """
    allocated = units.parse_size(_tres(fields["AllocTRES"], "mem"), default_unit="M")
    if allocated:
        return allocated
    size = units.parse_size(fields["ReqMem"].rstrip("nc"), default_unit="M")
    counted = {"n": "NNodes", "c": "AllocCPUS"}.get(fields["ReqMem"][-1:])
    factor = units.parse_count(fields[counted]) if counted else 1
    return size * (factor or 1) if size else None
