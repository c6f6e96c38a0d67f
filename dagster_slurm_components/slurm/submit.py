"""Submit a job: ``sbatch``, and what its answer proves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.slurm.header import command_line
from dagster_slurm_components.slurm.rejections import AMBIGUOUS, Rejection, classify_rejection
from dagster_slurm_components.slurm.replies import last_line

_ID_LINE = re.compile(r"(?P<job_id>[1-9][0-9]{0,19})(?:;(?P<cluster>[A-Za-z0-9][A-Za-z0-9_.-]*))?")
_SENTENCE = re.compile(
    r"Submitted batch job (?P<job_id>[1-9][0-9]{0,19})"
    r"(?: on cluster (?P<cluster>[A-Za-z0-9][A-Za-z0-9_.-]*))?"
)
_AMBIGUOUS = re.compile("|".join(AMBIGUOUS), re.IGNORECASE)


@dataclass(frozen=True)
class SubmitReply:
    """What one call of sbatch proves.

    Attributes:
        verdict: ``accepted``: the job exists, as ``job_id``. ``rejected``: it does not exist, ``rejection``
            says why. ``ambiguous``: it may or may not exist, and only queue and accounting can tell; never
            submit again before both were asked for the job's name.
        job_id: The new job's id.
        cluster: The cluster it went to, where sbatch named one.
        rejection: Why it was refused.
        message: What sbatch said, for a log.
    """

    verdict: Literal["accepted", "rejected", "ambiguous"]
    job_id: str | None = None
    cluster: str | None = None
    rejection: Rejection | None = None
    message: str = ""


def sbatch(
    script: str,
    args: Sequence[str] = (),
    *,
    options: Sequence[tuple[str, str]] = (),
) -> list[str]:
    """Return the command that submits a job script.

    Args:
        script: The script's absolute path.
        args: The script's positional arguments.
        options: More options, as for ``header.render_header``; on the command line they beat the script's
            header.

    Raises:
        DagsterSlurmError: ``script`` is no absolute path, or an option can't be written.
    """
    if not script.startswith("/"):
        raise DagsterSlurmError(f"The job script's path {script!r} is not absolute.")
    return ["sbatch", "--parsable", *command_line(options), script, *args]


def parse_sbatch(returncode: int | None, out: str, err: str) -> SubmitReply:
    """Read sbatch's answer.

    Warnings, a site's greetings or a wrapper's "Submitted batch job 12" around the id do no harm. An id
    counts only if sbatch ended with 0; everything that doesn't prove an end is ambiguous.

    Args:
        returncode: How sbatch ended: negative for a signal, ``None`` when it was given up on.
        out: Its standard output.
        err: Its standard error.
    """
    message = "\n".join(line for line in (err.strip(), out.strip()) if line)
    if returncode == 0:
        found = _find_id(out)
        if found is None:
            return SubmitReply("ambiguous", message=message or "sbatch ended with 0 but printed no job id")
        return SubmitReply("accepted", found["job_id"], found["cluster"], message=err.strip())
    if returncode is None or returncode < 0 or _find_id(out) is not None or _AMBIGUOUS.search(err):
        return SubmitReply("ambiguous", message=message or "sbatch gave no answer")
    if returncode in (126, 127):
        return SubmitReply("rejected", rejection=_no_sbatch(err), message=message)
    return SubmitReply("rejected", rejection=classify_rejection(err or out), message=message)


def _find_id(out: str) -> re.Match[str] | None:
    """Find the id: the last line that is one, since greetings come first."""
    matches = [_ID_LINE.fullmatch(line.strip()) or _SENTENCE.search(line) for line in out.split("\n")]
    return next((match for match in reversed(matches) if match is not None), None)


def _no_sbatch(err: str) -> Rejection:
    return Rejection(
        kind="permanent",
        option=None,
        message=last_line(err) or "sbatch could not be started",
        hint="Is Slurm on this host, and sbatch on the PATH of a non-interactive login?",
    )
