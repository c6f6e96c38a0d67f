"""The ledger of a run directory, as it is read from outside."""

from __future__ import annotations

from dataclasses import dataclass

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
    r"""Read a ledger; see ``satellite.ledger.Ledger`` for its lines.

    Example:
        >>> parse_ledger(b"token=ab\nintent=5\njob_id=12\nsubmitted=6\n").job_id
        '12'
    """
    token, job_id, submitted = "", None, None
    # The last line may be torn, and a torn job id is another job's.
    for line in data.decode("utf-8", "replace").split("\n")[:-1]:
        name, _, value = line.partition("=")
        if name == "token":
            token = value
        elif name in ("intent", "rejected", "void"):
            job_id = None
        elif name == "job_id":
            job_id = value
        elif name in ("submitted", "adopted"):
            submitted = float(value)
    return LedgerRecord(token, job_id, submitted)
