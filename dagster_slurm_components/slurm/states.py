"""Every state a Slurm job can be in, and what it means for the person who waits for it."""

import re
from dataclasses import dataclass
from enum import Enum

from dagster_slurm_components.slurm.tables import read_table


class Phase(Enum):
    """Where a job is in its life."""

    WAITING = "waiting"
    """Its script has not started (again) yet."""
    RUNNING = "running"
    """Its script runs, or is stopped in the middle."""
    ENDING = "ending"
    """Its script is over, Slurm is still cleaning up; the final state follows."""
    TERMINAL = "terminal"
    """It is over. Only a requeue (see ``SlurmState.retryable``) can bring it back."""


@dataclass(frozen=True)
class SlurmState:
    """One row of the table.

    Attributes:
        name: Slurm's long name, or the unknown word as it came.
        explanation: The state in plain words; ``advice`` says what the user can do about it, and may be empty.
        retryable: Whether the same job may well succeed when it is started again, unchanged. Slurm itself may put such
            a job back into the queue, by its own configuration: in the accounting another row may follow this one.
        kind: Its name in a retry policy; empty for an end that no policy answers.
        options: The resource options that a user could change, the likeliest first.
    """

    name: str
    phase: Phase
    explanation: str
    advice: str = ""
    retryable: bool = False
    kind: str = ""
    options: tuple[str, ...] = ()
    known: bool = True


_TABLE = read_table("states")
STATES: dict[str, SlurmState] = {
    row["name"]: SlurmState(
        name=row["name"],
        phase=Phase(row["phase"]),
        explanation=row["explanation"],
        advice=row["advice"],
        retryable=row["retryable"] == "yes",
        kind=row["kind"],
        options=tuple(row["options"].split()),
    )
    for row in _TABLE
}
"""The table, by long name."""

_CODES = {row["code"]: STATES[row["name"]] for row in _TABLE if row["code"]}
_WORD = re.compile(r"[A-Z][A-Z_]*")


def state(word: str) -> SlurmState:
    """Look up a state by the word any Slurm program prints for it. Never raises.

    Long names, short codes (``CG``), sacct's ``CANCELLED by 1000`` and words cut to a column (``OUT_OF_ME+``)
    are understood. A cut word that fits several states (``COMPLET+``) is unknown, because ``COMPLETING`` must
    never be taken for ``COMPLETED``. An unknown word gets a row that is not terminal: the job may well be alive.
    """
    name = word.strip().upper().split(" ")[0]
    row = STATES.get(name) or _CODES.get(name)
    if row is not None:
        return row
    if name.endswith("+") and _WORD.fullmatch(name[:-1]):
        matches = [row for row in STATES.values() if row.name.startswith(name[:-1])]
        if len(matches) == 1:
            return matches[0]
    return SlurmState(
        name=word.strip(),
        phase=Phase.RUNNING,
        explanation=f"Slurm reports the unknown state {word.strip()!r}; the job is taken for alive.",
        known=False,
    )
