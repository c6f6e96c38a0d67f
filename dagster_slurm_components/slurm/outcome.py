"""Decide how a job ended, in words that name the numbers and the option to change."""

from __future__ import annotations

import re
import signal as signals
from dataclasses import dataclass

from dagster_slurm_components.slurm import states
from dagster_slurm_components.slurm.accounting import AccountingRow
from dagster_slurm_components.slurm.states import Outcome
from dagster_slurm_components.units import format_duration, format_size

# Slurm's own daemons write these lines into the job's stderr; the prefix keeps a payload's words out.
_DAEMON = r"(?m)^(?:slurmstepd|slurmd|srun)(?:-[\w.]+)?: .*"
_MEMORY_TEXT = re.compile(
    _DAEMON + r"(?:exceeded (?:job |step |virtual )?memory limit|oom[-_ ]?kill|out[- ]of[- ]memory)",
    re.IGNORECASE,
)
_TIME_TEXT = re.compile(_DAEMON + r"DUE TO TIME LIMIT")
_PREEMPTION_TEXT = re.compile(_DAEMON + r"DUE TO PREEMPTION")
_NODE_TEXT = re.compile(_DAEMON + r"DUE TO NODE FAILURE")

_SIGNAL_OOM = 125
_SIGNAL_NO_OUTPUT = 53


@dataclass(frozen=True)
class Ending:
    """How a job ended.

    Attributes:
        outcome: The kind of end; ``None`` while the job isn't known to be over.
        message: What happened, with its numbers.
        advice: What the user can do; may be empty.
        retryable: Whether the same job may well succeed when it is submitted again, unchanged.
    """

    outcome: Outcome | None
    message: str
    advice: str = ""
    retryable: bool = False


def outcome(accounting: AccountingRow, stderr_tail: str = "") -> Ending:
    """Decide how a job ended.

    Slurm's state is the first word but not the last: without cgroups a job over its memory limit is a plain
    ``FAILED`` by signal 9, and a step killed for memory leaves the job ``FAILED`` with ``0:125``. The end of
    the job's stderr tells these apart.

    Args:
        accounting: What sacct knows.
        stderr_tail: The last lines of the job's stderr; only lines of Slurm's daemons are looked at.
    """
    row = states.state(accounting.state)
    if row.outcome is None:
        return Ending(None, row.explanation, row.advice)
    found = _refine(row.outcome, accounting, stderr_tail)
    if found is not row.outcome:
        row = next(other for other in states.STATES.values() if other.outcome is found)
    message = _MESSAGES.get(found, _plain)(accounting, row)
    advice = _no_output_advice(accounting) or row.advice
    return Ending(found, message, advice, row.retryable)


def _refine(found: Outcome, accounting: AccountingRow, stderr_tail: str) -> Outcome:
    """Replace a vague ``FAILED`` or ``CANCELLED`` by the cause that signals, steps and stderr prove."""
    if found not in (Outcome.FAILED, Outcome.CANCELLED):
        return found
    if found is Outcome.FAILED:
        out_of_memory_step = any(step.state == "OUT_OF_MEMORY" for step in accounting.steps)
        if accounting.signal == _SIGNAL_OOM or out_of_memory_step or _MEMORY_TEXT.search(stderr_tail):
            return Outcome.OUT_OF_MEMORY
    if accounting.cancelled_by is None:
        if _TIME_TEXT.search(stderr_tail):
            return Outcome.TIMEOUT
        if _PREEMPTION_TEXT.search(stderr_tail):
            return Outcome.PREEMPTED
        if _NODE_TEXT.search(stderr_tail):
            return Outcome.NODE_FAILURE
    return found


def _plain(_: AccountingRow, row: states.SlurmState) -> str:
    return row.explanation


def _failed(accounting: AccountingRow, _: states.SlurmState) -> str:
    if accounting.signal == _SIGNAL_NO_OUTPUT:
        return "Slurm could not open the job's output file."
    if not accounting.nodes:
        # A job that sbatch refuses with "Requested node configuration is not available" leaves such a record.
        return "The job never started: no node can fulfil what it asks for, and Slurm refused it."
    if accounting.signal is not None:
        return f"The job was ended by signal {signal_name(accounting.signal)}."
    if accounting.exit_code:
        return f"The job ended with exit code {accounting.exit_code}."
    return "The job failed."


def _out_of_memory(accounting: AccountingRow, _: states.SlurmState) -> str:
    used, asked = accounting.used_memory_bytes, accounting.req_mem_bytes
    message = "The job used more memory than it asked for"
    if asked:
        message += f" ({format_size(asked)} in all"
        message += f"; {format_size(used)} at the last sample)" if used else ")"
    return message + "."


def _timeout(accounting: AccountingRow, _: states.SlurmState) -> str:
    if accounting.elapsed_s is None or not accounting.time_limit_s:
        return "The job reached its time limit and was killed."
    ran, limit = format_duration(accounting.elapsed_s), format_duration(accounting.time_limit_s)
    return f"The job reached its time limit and was killed: it ran for {ran}, asked was {limit}."


def _cancelled(accounting: AccountingRow, _: states.SlurmState) -> str:
    if accounting.cancelled_by is None:
        return "The job was cancelled."
    return f"The job was cancelled by the user with id {accounting.cancelled_by}."


def _on_nodes(accounting: AccountingRow, row: states.SlurmState) -> str:
    return f"{row.explanation} It ran on {accounting.nodes}." if accounting.nodes else row.explanation


_MESSAGES = {
    Outcome.FAILED: _failed,
    Outcome.OUT_OF_MEMORY: _out_of_memory,
    Outcome.TIMEOUT: _timeout,
    Outcome.CANCELLED: _cancelled,
    Outcome.NODE_FAILURE: _on_nodes,
    Outcome.BOOT_FAILURE: _on_nodes,
    Outcome.PREEMPTED: _on_nodes,
}


def _no_output_advice(accounting: AccountingRow) -> str:
    if accounting.signal != _SIGNAL_NO_OUTPUT:
        return ""
    return "Does `workdir` exist on the compute nodes, is it writable, and is the quota not used up?"


def signal_name(number: int) -> str:
    """Write a signal with its name, ``9 (SIGKILL)``; the numbers are Linux's."""
    try:
        return f"{number} ({signals.Signals(number).name})"
    except ValueError:
        return str(number)
