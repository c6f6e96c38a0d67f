"""``sbatch`` and ``scancel``, and the ids and names that Slurm's commands take.

sbatch's answer is read where it runs: ``satellite.submission``.
"""

import re
from collections.abc import Sequence

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.slurm.replies import messages

_JOB_ID = re.compile(r"[1-9][0-9]{0,19}(?:[_+][0-9]{1,10})?")
_PRINTED_ID = re.compile(r"[1-9][0-9]{0,19}(?:_[0-9]{1,10}|_\[[0-9,:%.\-]{0,4096}\]|\+[0-9]{1,10})?")
_ENDED = re.compile(
    r"invalid job id|already (?:completing|completed|finished)|no such job|is not running", re.IGNORECASE
)
_CANCEL_ERROR = re.compile(r"Kill job error on job id (?P<job_id>[^\s:]+): (?P<message>.*)")


def is_job_id(text: str) -> bool:
    """Say whether ``text`` is one job, array task or component: ``123``, ``123_4``, ``123+0``."""
    return _JOB_ID.fullmatch(text) is not None


def is_printed_id(text: str) -> bool:
    """Say whether ``text`` is an id as squeue prints it: also an array's waiting rest, ``123_[5-9%2]``."""
    return _PRINTED_ID.fullmatch(text) is not None


def check_job_ids(job_ids: Sequence[str]) -> None:
    """Raise DagsterSlurmError unless all are exactly job ids, and there is one.

    ``scancel`` and ``sacct`` without an id mean something else than "nothing".
    """
    if not job_ids:
        raise DagsterSlurmError("No job id was given.")
    for job_id in job_ids:
        if not is_job_id(job_id):
            raise DagsterSlurmError(f"{job_id!r} is no Slurm job id.")


def check_name(name: str) -> None:
    """Raise DagsterSlurmError for a job name that ``--name`` would not take as one name."""
    if not re.fullmatch(r"[^,\x00-\x20]{1,200}", name):
        raise DagsterSlurmError(f"Jobs can't be looked up by the name {name!r}.")


def sbatch(script: str, args: Sequence[str] = ()) -> list[str]:
    """Return the command that submits a job script, an absolute path, with the script's positional arguments."""
    if not script.startswith("/"):
        raise DagsterSlurmError(f"The job script's path {script!r} is not absolute.")
    return ["sbatch", "--parsable", script, *args]


def scancel(job_ids: Sequence[str]) -> list[str]:
    """Return the command that cancels exactly these jobs, at most a few hundred.

    A plain ``scancel`` ends waiting jobs too and reaches batch script and steps. Ids only, which are checked, never a
    name or a user: nobody else's job can be hit by a filter.
    """
    check_job_ids(job_ids)
    return ["scancel", *job_ids]


def scancel_failure(returncode: int | None, err: str) -> str | None:
    """Say what scancel could not do, by its standard error; ``None`` is the code of one that was given up on.

    A job that had ended already is no failure, though scancel ends with 1 then.
    """
    lines = messages(err)
    errors = [match for line in lines if (match := _CANCEL_ERROR.search(line))]
    if errors or returncode == 0:
        failed = [each for each in errors if not _ENDED.search(each["message"])]
        return "; ".join(f"job {each['job_id']}: {each['message'].strip()}" for each in failed) or None
    ended = "no answer in time" if returncode is None else f"scancel ended with {returncode}"
    return " ".join(lines) or ended
