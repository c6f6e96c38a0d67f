"""Cancel jobs: ``scancel``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dagster_slurm_components.slurm.ids import check_job_ids
from dagster_slurm_components.slurm.replies import messages

_GONE = re.compile(
    r"invalid job id|already (?:completing|completed|finished)|no such job|is not running", re.IGNORECASE
)
_CANCEL_ERROR = re.compile(r"Kill job error on job id (?P<job_id>[^\s:]+): (?P<message>.*)")


@dataclass(frozen=True)
class CancelReply:
    """What scancel said.

    Attributes:
        gone: Jobs that had ended already, or which slurmctld no longer knows: nothing is left to cancel.
        failed: What it said for each job it could not cancel.
        message: The complaint about the call as a whole; empty when there was none.
    """

    gone: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether every job was signalled or is gone."""
        return not self.failed and not self.message


def scancel(job_ids: Sequence[str]) -> list[str]:
    """Return the command that cancels exactly these jobs.

    A plain ``scancel`` ends waiting jobs too and reaches batch script and steps. Ids only, never a name or a
    user: nobody else's job can be hit by a filter.

    Args:
        job_ids: At most a few hundred per call.

    Raises:
        DagsterSlurmError: An id is no job id, or there is none.
    """
    check_job_ids(tuple(job_ids))
    return ["scancel", *job_ids]


def parse_scancel(returncode: int | None, out: str, err: str) -> CancelReply:
    """Read scancel's answer; a job that had ended already is no failure, though scancel ends with 1."""
    gone: list[str] = []
    failed: list[tuple[str, str]] = []
    others: list[str] = []
    for line in messages(err):
        match = _CANCEL_ERROR.search(line)
        if match is None:
            others.append(line)
        elif _GONE.search(match["message"]):
            gone.append(match["job_id"])
        else:
            failed.append((match["job_id"], match["message"].strip()))
    message = ""
    if returncode != 0 and not gone and not failed:
        message = " ".join(others) or "no answer in time" if returncode is None else " ".join(others)
        message = message or f"scancel ended with {returncode}"
    return CancelReply(gone=tuple(gone), failed=tuple(failed), message=message)
