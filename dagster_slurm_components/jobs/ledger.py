"""The ledger of a run directory, as it is read from outside."""

from __future__ import annotations

from dataclasses import dataclass

from dagster_slurm_components.hosts.satellite.ledger import Entries
from dagster_slurm_components.hosts.satellite.protocol import Failure

LEDGER = "ledger"


@dataclass(frozen=True)
class LedgerRecord:
    """What a ledger says.

    Attributes:
        token: The mark of the job.
        job_id: The job; none while nobody knows whether there is one.
        submitted: When it was, in seconds since the epoch by the host's clock.
    """

    token: str
    job_id: str | None
    submitted: float | None


def parse_ledger(data: bytes) -> LedgerRecord:
    r"""Read a ledger; see ``satellite.ledger.Entries`` for its lines.

    One that can't be read names no job: the satellite refuses to submit or settle it, and says why.

    Example:
        >>> parse_ledger(b"token=ab\nintent=5\njob_id=12\nsubmitted=6\n").job_id
        '12'
    """
    entries = Entries()
    try:
        entries.read(data.decode("utf-8", "replace"))
    except Failure:
        return LedgerRecord("", None, None)
    submitted = None if entries.submitted is None else float(entries.submitted)
    return LedgerRecord(entries.token or "", entries.job_id, submitted)
