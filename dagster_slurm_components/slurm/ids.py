"""Job ids as Slurm writes them: ``123``, ``123_4``, ``123_[0-9%4]`` and ``123+0``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dagster_slurm_components.errors import DagsterSlurmError

_JOB_ID = re.compile(r"[1-9][0-9]{0,19}(?:[_+][0-9]{1,10})?")
_PRINTED_ID = re.compile(r"[1-9][0-9]{0,19}(?:_[0-9]{1,10}|_\[[0-9,:%.\-]{0,4096}\]|\+[0-9]{1,10})?")


def is_job_id(text: str) -> bool:
    """Say whether ``text`` is one job, array task or component: ``123``, ``123_4``, ``123+0``."""
    return _JOB_ID.fullmatch(text) is not None


def is_printed_id(text: str) -> bool:
    """Say whether ``text`` is an id as squeue prints it: also an array's waiting rest, ``123_[5-9%2]``."""
    return _PRINTED_ID.fullmatch(text) is not None


def join_job_ids(job_ids: Iterable[str]) -> str:
    """Return the ids as one comma separated argument.

    Raises:
        DagsterSlurmError: One of them is no job id, or there is none: ``scancel`` and ``sacct`` without an id
            mean something else than "nothing".
    """
    ids = tuple(job_ids)
    check_job_ids(ids)
    return ",".join(ids)


def check_job_ids(job_ids: tuple[str, ...]) -> None:
    """Refuse an empty list and everything that is not exactly a job id.

    Raises:
        DagsterSlurmError: See above.
    """
    if not job_ids:
        raise DagsterSlurmError("No job id was given.")
    for job_id in job_ids:
        if not is_job_id(job_id):
            raise DagsterSlurmError(f"{job_id!r} is no Slurm job id.")
