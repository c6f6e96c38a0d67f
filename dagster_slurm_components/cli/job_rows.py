"""A job in words and numbers, as ``dg-slurm jobs`` prints it: from what its files and one look at it have told."""

import re
import shlex
import time
from collections.abc import Sequence
from typing import Any

from dagster_slurm_components.cli.terminal import Columns, Row, iso
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.figures import job_figures
from dagster_slurm_components.jobs.look import JobInfo
from dagster_slurm_components.jobs.records import RunDirectory
from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.slurm.reasons import explain
from dagster_slurm_components.slurm.states import state
from dagster_slurm_components.units import format_duration

HEAD = 16 * 1024
"""Bytes of a job script; the options of sbatch are in its first lines."""
_OPTION = re.compile(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", re.MULTILINE)
_OURS = {"job-name", "comment", "chdir", "output", "error", "open-mode", "signal", "array"}
"""Options with which this package submits every job, and which ask for nothing."""


def asked_for(job_script: bytes) -> dict[str, str]:
    """Return what a job script asks sbatch for, by sbatch's long options."""
    head = job_script.decode("utf-8", "replace")
    found = {name: "".join(shlex.split(value)) for name, value in _OPTION.findall(head)}
    return {name: value or "yes" for name, value in found.items() if name not in _OURS}


def read_asked(satellite: Satellite, run_dirs: Sequence[str]) -> list[dict[str, str]]:
    """Return the same of the jobs in run directories: one call for all of them."""
    heads = satellite.read([FileRead(f"{run_dir}/job.sh", 0, HEAD) for run_dir in run_dirs])
    return [asked_for(head.data) for head in heads]


def job_row(
    folder: RunDirectory, seen: JobInfo | None, asked: dict[str, str], *, now: float | None = None
) -> dict[str, Any]:
    """Return what is known of a job, by names for programs; ``now`` is the time, in seconds since the epoch."""
    now = time.time() if now is None else now
    status, alive = folder.status, bool(seen and seen.alive)
    figures = (
        job_figures(seen.handle, Ended(seen.observation, seen.evidence), profile="", host="") if seen else {}
    )
    began = status.started if status else None
    ended = (status.ended if status else None) or (now if alive else None)
    observation = seen.observation if seen else None
    return {
        "job_id": folder.ledger.job_id,
        "state": state_of(seen),
        "reason": observation.reason if observation else None,
        "exit_code": observation.exit_code if observation else None,
        "restarts": observation.restarts if observation else 0,
        "left": folder.lease.left,
        **{name: getattr(folder, name) for name in ("run_id", "step", "attempt")},
        "dagster_partition": folder.partition,
        "slurm_partition": figures.get("job/partition") or asked.get("partition"),
        "node": figures.get("job/nodes"),
        "submitted": iso(folder.ledger.submitted),
        "expected_start": iso(observation.starts_at if observation and alive else None),
        "waited_s": _between(folder.ledger.submitted, began or (now if alive else None)),
        "ran_s": _between(began, ended),
        "memory_max_mib": figures.get("job/memory_max_mib"),
        "memory_asked_mib": figures.get("job/memory_asked_mib"),
        "cpu_efficiency": figures.get("job/cpu_efficiency"),
        "collected": folder.collected,
        "run_directory": folder.path,
    }


def memory(row: Row) -> str:
    """Return the most memory that was used, and what was asked for, in MiB, as far as they are known."""
    sizes = [row["memory_max_mib"], row["memory_asked_mib"]]
    return "/".join("?" if size is None else f"{size:.0f}" for size in sizes) if any(sizes) else ""


COLUMNS: Columns = {
    "job": "job_id",
    "state": lambda row: f"{row['state']}, left" if row["left"] else row["state"],
    "reason": "reason",
    "partition": "slurm_partition",
    "node": "node",
    "step": "step",
    "Dagster partition": "dagster_partition",
    "waited": lambda row: _clock(row["waited_s"]),
    "ran": lambda row: _clock(row["ran_s"]),
    "MiB used/asked": memory,
    "exit": "exit_code",
    "run": lambda row: row["run_id"][:8],
}


def state_of(seen: JobInfo | None) -> str:
    """Return Slurm's word for the state of a job."""
    return seen.observation.state if seen else "not submitted"


def explanation(seen: JobInfo | None) -> str:
    """Return what a job's state means, or why it waits."""
    if seen is None:
        return ""
    if seen.observation.reason:
        return f"{seen.observation.reason}: {explain(seen.observation.reason).text}"
    row = state(seen.observation.state)
    return f"{row.explanation} {row.advice}".strip() if row.known else ""


def timeline(folder: RunDirectory, starts: Sequence[StatusRecord]) -> list[tuple[float | None, str]]:
    """Return what happened to a job, and when."""
    events: list[tuple[float | None, str]] = [(folder.ledger.submitted, "submitted")]
    for start in starts:
        where = start.get("nodes") or start.host or "?"
        events.append((start.started, f"start {start.restart + 1} on {where}"))
        events += [(start.launched, "payload began")] if start.launched else []
        events += [(None, f"signal {name}") for name in start.signals]
        events += [(start.ended, f"ended with exit code {start.exit_code}")] if start.ended else []
    return events


def _between(first: float | None, last: float | None) -> float | None:
    return None if first is None or last is None else round(max(0.0, last - first), 3)


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else format_duration(seconds).removeprefix("00:")
