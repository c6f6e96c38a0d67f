"""Every state a Slurm job can be in, and what it means for the person who waits for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """Where a job is in its life."""

    WAITING = "waiting"
    """Its script has not started (again) yet."""
    RUNNING = "running"
    """Its script runs, or is stopped in the middle."""
    ENDING = "ending"
    """Its script is over, Slurm is still cleaning up; the final state follows."""
    TERMINAL = "terminal"
    """It is over. Only a requeue (see ``SlurmState.requeues``) can bring it back."""


class Outcome(Enum):
    """How a job ended."""

    SUCCESS = "success"
    FAILED = "failed"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    NODE_FAILURE = "node_failure"
    BOOT_FAILURE = "boot_failure"
    PREEMPTED = "preempted"
    DEADLINE = "deadline"


@dataclass(frozen=True)
class SlurmState:
    """One row of the table.

    Attributes:
        name: Slurm's long name, or the unknown word as it came.
        phase: Where the job is in its life.
        outcome: How it ended; ``None`` unless the phase is ``TERMINAL``.
        explanation: The state in plain words.
        advice: What the user can do about it; empty when there is nothing to do.
        retryable: Whether the same job may well succeed when it is submitted again, unchanged.
        requeues: Whether Slurm may put this very job back into the queue, by its own configuration: seen in
            the accounting alone, such a row may be followed by another.
        known: Whether this is a state of the table.
    """

    name: str
    phase: Phase
    outcome: Outcome | None
    explanation: str
    advice: str = ""
    retryable: bool = False
    requeues: bool = False
    known: bool = True


def _waiting(name: str, explanation: str, advice: str = "") -> SlurmState:
    return SlurmState(name, Phase.WAITING, None, explanation, advice)


def _running(name: str, explanation: str, advice: str = "") -> SlurmState:
    return SlurmState(name, Phase.RUNNING, None, explanation, advice)


def _ending(name: str, explanation: str) -> SlurmState:
    return SlurmState(name, Phase.ENDING, None, explanation)


_RELEASE = "Release it with `scontrol release JOBID`, or cancel it."

# Slurm keeps a base state and flags in one number and prints one word: the first flag that is set, otherwise
# the base state (job_state_string in src/common/slurm_protocol_defs.c). So both kinds are rows here.
_ROWS: tuple[SlurmState, ...] = (
    _waiting("PENDING", "The job waits in the queue."),
    _waiting(
        "CONFIGURING", "The job has its nodes and waits until they are ready, for instance until they boot."
    ),
    _waiting("POWER_UP_NODE", "The job waits until its nodes are powered up."),
    _waiting("REQUEUED", "Slurm put the job back into the queue; it starts again under the same id."),
    _waiting(
        "REQUEUE_FED", "The federation put the job back into the queue; it starts again under the same id."
    ),
    _waiting("REQUEUE_HOLD", "Slurm put the job back into the queue and holds it.", _RELEASE),
    _waiting("SPECIAL_EXIT", "The job was requeued in a special state and is held.", _RELEASE),
    _waiting(
        "RESV_DEL_HOLD", "The job is held because its reservation was deleted.", "Remove `reservation`."
    ),
    _waiting("LAUNCH_FAILED", "Slurm could not launch the job on its nodes and puts it back into the queue."),
    _waiting(
        "RECONFIG_FAIL", "A node could not be configured for the job; Slurm puts it back into the queue."
    ),
    _waiting(
        "GETENV_FAILED", "Slurm could not load the user's environment for the job and holds it.", _RELEASE
    ),
    _waiting("EXPEDITING", "Slurm is about to start the job again with priority after a node failed."),
    _waiting("REVOKED", "Another cluster of the federation runs the job; its record here was withdrawn."),
    _running("RUNNING", "The job runs."),
    _running(
        "SUSPENDED", "The job's processes are stopped and its CPUs were given to other jobs; it will go on."
    ),
    _running("STOPPED", "The job was stopped by a signal and keeps its CPUs.", "Send it SIGCONT to go on."),
    _running("RESIZING", "The job's allocation is about to change its size."),
    _running("SIGNALING", "Slurm is sending the job a signal."),
    _ending("COMPLETING", "The job's script is over; Slurm ends what is left on the nodes."),
    _ending("STAGE_OUT", "The job's script is over; the burst buffer copies its files out."),
    _ending("UPDATE_DB", "The job is over; Slurm is updating its accounting record."),
    SlurmState("COMPLETED", Phase.TERMINAL, Outcome.SUCCESS, "The job ended with exit code 0."),
    SlurmState(
        "FAILED",
        Phase.TERMINAL,
        Outcome.FAILED,
        "The job ended with an exit code other than 0, or by a signal.",
        "Read the end of its stderr.",
    ),
    SlurmState(
        "OUT_OF_MEMORY",
        Phase.TERMINAL,
        Outcome.OUT_OF_MEMORY,
        "The job used more memory than it asked for, and a process of it was killed.",
        "Ask for more with `mem`, `mem_per_cpu` or `mem_per_gpu`.",
    ),
    SlurmState(
        "TIMEOUT",
        Phase.TERMINAL,
        Outcome.TIMEOUT,
        "The job reached its time limit and was killed.",
        "Ask for more with `time`, or write checkpoints and let it be requeued.",
    ),
    SlurmState(
        "CANCELLED",
        Phase.TERMINAL,
        Outcome.CANCELLED,
        "The job was cancelled by its user or by an administrator.",
    ),
    SlurmState(
        "NODE_FAIL",
        Phase.TERMINAL,
        Outcome.NODE_FAILURE,
        "A node of the job failed or stopped answering.",
        "Submit it again; `exclude` keeps the bad node out.",
        retryable=True,
        requeues=True,
    ),
    SlurmState(
        "BOOT_FAIL",
        Phase.TERMINAL,
        Outcome.BOOT_FAILURE,
        "A node could not be booted for the job.",
        "Submit it again; `exclude` keeps the bad node out.",
        retryable=True,
        requeues=True,
    ),
    SlurmState(
        "PREEMPTED",
        Phase.TERMINAL,
        Outcome.PREEMPTED,
        "A job of higher priority took the nodes.",
        "Submit it again, or use a partition or QOS that is not preempted.",
        retryable=True,
        requeues=True,
    ),
    SlurmState(
        "DEADLINE",
        Phase.TERMINAL,
        Outcome.DEADLINE,
        "The job could not end before its deadline and was removed.",
        "Move `deadline`, or ask for less `time`.",
    ),
)

_COMPACT = {
    **{"BF": "BOOT_FAIL", "CA": "CANCELLED", "CD": "COMPLETED", "CF": "CONFIGURING", "CG": "COMPLETING"},
    **{"DL": "DEADLINE", "F": "FAILED", "NF": "NODE_FAIL", "OOM": "OUT_OF_MEMORY", "PD": "PENDING"},
    **{"PR": "PREEMPTED", "R": "RUNNING", "RD": "RESV_DEL_HOLD", "RF": "REQUEUE_FED", "RH": "REQUEUE_HOLD"},
    **{"RQ": "REQUEUED", "RS": "RESIZING", "RV": "REVOKED", "S": "SUSPENDED", "SE": "SPECIAL_EXIT"},
    **{"SI": "SIGNALING", "SO": "STAGE_OUT", "ST": "STOPPED", "TO": "TIMEOUT"},
}

STATES: dict[str, SlurmState] = {row.name: row for row in _ROWS}
"""The table, by long name."""

_WORD = re.compile(r"[A-Z][A-Z_]*")


def state(word: str) -> SlurmState:
    """Look up a state by the word any Slurm program prints for it. Never raises.

    Long names, short codes (``CG``), sacct's ``CANCELLED by 1000`` and words cut to a column (``OUT_OF_ME+``)
    are understood. A cut word that fits several states (``COMPLET+``) is unknown, because ``COMPLETING`` must
    never be taken for ``COMPLETED``. An unknown word gets a row that is not terminal: the job may well be
    alive.
    """
    name = word.strip().upper().split(" ")[0]
    if name in STATES:
        return STATES[name]
    if name in _COMPACT:
        return STATES[_COMPACT[name]]
    if name.endswith("+") and _WORD.fullmatch(name[:-1]):
        matches = [row for row in _ROWS if row.name.startswith(name[:-1])]
        if len(matches) == 1:
            return matches[0]
    return SlurmState(
        name=word.strip(),
        phase=Phase.RUNNING,
        outcome=None,
        explanation=f"Slurm reports the unknown state {word.strip()!r}; the job is taken for alive.",
        known=False,
    )
