"""Decide how a job ended, in words that name the numbers and the option to change."""

import re
import signal as signals
from dataclasses import replace

from dagster_slurm_components.slurm.accounting import AccountingRow
from dagster_slurm_components.slurm.states import STATES, Phase, SlurmState, state
from dagster_slurm_components.units import format_duration, format_size

# Slurm's own daemons write these lines into the job's stderr; the prefix keeps a payload's words out. In 26.05 it is
# the time alone, as in many a payload's log: there the beginning of Slurm's own sentences has to follow.
_DAEMON = (
    r"(?m)^(?:(?:slurmstepd|slurmd|srun)(?:-[\w.]+)?: "
    r"|\[\d{4}-[\dT:.+-]+\] error: (?=\*\*\* |StepId=|Job \d|Exceeded (?:job|step) |Detected \d)).*"
)
_CAUSES = {
    "OUT_OF_MEMORY": re.compile(
        _DAEMON + r"(?:exceeded (?:job |step |virtual )?memory limit|oom[-_ ]?kill|out[- ]of[- ]memory)",
        re.IGNORECASE,
    ),
    "TIMEOUT": re.compile(_DAEMON + r"DUE TO TIME LIMIT"),
    "PREEMPTED": re.compile(_DAEMON + r"DUE TO PREEMPTION"),
    "NODE_FAIL": re.compile(_DAEMON + r"DUE TO NODE FAILURE"),
}
_CANCELLED = re.compile(_DAEMON + r"\*\*\* JOB .* CANCELLED AT \S+ (?:DUE to SIGNAL .*)?\*\*\*")
"""Of a step alone it would say little: srun ends its other ranks so when one fails."""
_SIGNAL_OOM = 125
_SIGNAL_NO_OUTPUT = 53
_OUTPUT_ADVICE = "Does `workdir` exist on the compute nodes, is it writable, and is the quota not used up?"


def last_words(stderr: str) -> str | None:
    """Return the state that Slurm's daemons named at the end of a job's stderr as the cause of its end, if they did.

    They know less than slurmctld, but they speak at once, and with slurmdbd down.
    """
    found = [(match.start(), name) for name, text in _CAUSES.items() for match in text.finditer(stderr)]
    return max(found)[1] if found else "CANCELLED" if _CANCELLED.search(stderr) else None


def cause(name: str, words: str | None, accounting: AccountingRow | None = None) -> str:
    """Replace a vague ``FAILED`` or ``CANCELLED`` by what signals, steps and the daemons' ``last_words`` prove.

    Slurm's state is the first word but not the last: without cgroups a job over its memory limit is a plain
    ``FAILED`` by signal 9, and a step killed for memory leaves the job ``FAILED`` with ``0:125``.
    """
    killed = accounting is not None and (accounting.signal == _SIGNAL_OOM or accounting.out_of_memory_step)
    if name == "FAILED" and (killed or words == "OUT_OF_MEMORY"):
        return "OUT_OF_MEMORY"
    by_whom = accounting.cancelled_by if accounting is not None else None
    if name in ("FAILED", "CANCELLED") and words not in (None, "OUT_OF_MEMORY") and by_whom is None:
        return words
    return name


def outcome(accounting: AccountingRow, words: str | None = None) -> SlurmState:
    """Return the state in which a job ended, explained with this job's figures; of one that isn't over its state."""
    row = state(accounting.state)
    if row.phase is not Phase.TERMINAL:
        return row
    row = STATES[cause(row.name, words, accounting)]
    advice = _OUTPUT_ADVICE if accounting.signal == _SIGNAL_NO_OUTPUT else row.advice
    return replace(row, explanation=_explanation(row, accounting), advice=advice)


def _explanation(row: SlurmState, accounting: AccountingRow) -> str:
    match row.name:
        case "FAILED":
            return _failed(accounting)
        case "OUT_OF_MEMORY":
            used, asked = accounting.used_memory_bytes, accounting.req_mem_bytes
            sample = f"; {format_size(used)} at the last sample" if used else ""
            figures = f" ({format_size(asked)} in all{sample})" if asked else ""
            return f"The job used more memory than it asked for{figures}."
        case "TIMEOUT" if accounting.elapsed_s is not None and accounting.time_limit_s:
            ran, limit = format_duration(accounting.elapsed_s), format_duration(accounting.time_limit_s)
            return f"The job reached its time limit and was killed: it ran for {ran}, asked was {limit}."
        case "CANCELLED":
            by = "" if accounting.cancelled_by is None else f" by the user with id {accounting.cancelled_by}"
            return f"The job was cancelled{by}."
        case "NODE_FAIL" | "BOOT_FAIL" | "PREEMPTED" if accounting.nodes:
            return f"{row.explanation} It ran on {accounting.nodes}."
    return row.explanation


def _failed(accounting: AccountingRow) -> str:
    if accounting.signal == _SIGNAL_NO_OUTPUT:
        return "Slurm could not open the job's output file."
    if not accounting.nodes:
        # A job that sbatch refuses with "Requested node configuration is not available" leaves such a record.
        return "The job never started: no node can fulfil what it asks for, and Slurm refused it."
    if accounting.signal is not None:
        name = signal_name(accounting.signal)
        return f"The job was ended by signal {accounting.signal}{f' ({name})' if name else ''}."
    if accounting.exit_code:
        return f"The job ended with exit code {accounting.exit_code}."
    return "The job failed."


def signal_name(number: int) -> str:
    """Return ``SIGKILL`` for 9, by Linux's numbers, or an empty text for what is no signal."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return ""
