"""Tell an answer from a failed question."""

import re

from dagster_slurm_components.slurm.tables import read_table

_TROUBLES = read_table("troubles")
AMBIGUOUS = tuple(row["pattern"] for row in _TROUBLES if row["about"] != "database")
"""Patterns, case ignored, of what sbatch writes to stderr when the job may exist nevertheless."""
_NO_ANSWER = re.compile(
    "|".join(row["pattern"] for row in _TROUBLES if row["about"] != "submission"), re.IGNORECASE
)


def query_failure(returncode: int | None, out: str, err: str) -> str | None:
    """Say why a query gave no observation, or ``None`` when its answer counts.

    An answer counts when the program ended with 0, unless it wrote nothing at all and complained of the
    network: sacct 20.11 ends with ``exit(errno)``, whose low byte may be 0. Harmless complaints (as of an unknown
    line in slurm.conf) don't spoil it. The code is negative for a signal, and ``None`` for a program given up on.
    """
    if returncode == 0 and (out.strip() or not _NO_ANSWER.search(err)):
        return None
    lines = messages(err) or messages(out)
    if lines:
        return lines[-1]
    if returncode is None:
        return "no answer in time"
    return f"ended by signal {-returncode}" if returncode < 0 else f"exit code {returncode} without a message"


def messages(text: str) -> list[str]:
    """Return the lines that are not blank, each without the ``program: error:`` before it."""
    lines = (
        re.sub(r"^(?:[\w./-]+: )?(?:error|fatal|warning): ", "", line.strip()) for line in text.split("\n")
    )
    return [line for line in lines if line]
