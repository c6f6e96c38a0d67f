"""Ask about one job and cancel jobs: ``scontrol`` and ``scancel``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.slurm import states
from dagster_slurm_components.slurm.environment import query
from dagster_slurm_components.slurm.ids import check_job_ids
from dagster_slurm_components.slurm.replies import messages
from dagster_slurm_components.slurm.units import parse_count, parse_epoch, parse_exit_code

_FIELD = re.compile(r"(?:^|\s)([A-Z][A-Za-z/:]*)=(\S*)")
_GONE = re.compile(
    r"invalid job id|already (?:completing|completed|finished)|no such job|is not running", re.IGNORECASE
)
_CANCEL_ERROR = re.compile(r"Kill job error on job id (?P<job_id>[^\s:]+): (?P<message>.*)")
_SIGNAL = re.compile(r"[A-Z][A-Z0-9]{1,9}")


@dataclass(frozen=True)
class ControlRow:
    """One job as ``scontrol show job`` knows it, also for MinJobAge after its end.

    Attributes:
        job_id: The job's own number, also for array tasks and components.
        state: The state's long name.
        reason: Why it waits or ended, or ``None``.
        exit_code: Exit code of the batch script, once it ended.
        signal: The signal that ended it, if one did.
        restarts: How often Slurm requeued it.
        nodes: Its node list in Slurm's compact form, empty if none.
        submit: Submission, in seconds since 1970.
        start: Start, real or expected.
        end: End, or the end of its time limit while it runs.
    """

    job_id: str
    state: str
    reason: str | None
    exit_code: int | None
    signal: int | None
    restarts: int | None
    nodes: str
    submit: int | None
    start: int | None
    end: int | None


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


def scontrol_show_job(job_id: str, *, cluster: str | None = None) -> list[str]:
    """Return the command that shows one job.

    Raises:
        DagsterSlurmError: ``job_id`` is no job id.
    """
    check_job_ids((job_id,))
    return query("scontrol", "--all", "show", "job", job_id, cluster=cluster)


def parse_scontrol(out: str) -> ControlRow | None:
    """Read the job from the answer of ``scontrol show job``; the first one where it shows several.

    Of what comes before ``UserId`` only the id is read, and of each field the first, so that nothing in a
    job's name (which comes first) or its comment (which comes late) is taken for a field.
    """
    head, _, rest = out.partition("\n   UserId=")
    found = re.match(r"JobId=([1-9][0-9]*)(?:\s|$)", head)
    fields = dict(reversed(_FIELD.findall(rest.split("\n\n")[0])))
    if found is None or "JobState" not in fields:
        return None
    exit_code, signal = parse_exit_code(fields.get("ExitCode", ""))
    reason = fields.get("Reason", "")
    nodes = fields.get("NodeList", "")
    return ControlRow(
        job_id=found[1],
        state=states.state(fields["JobState"]).name,
        reason=None if reason in {"", "None", "(null)"} else reason,
        exit_code=exit_code,
        signal=signal,
        restarts=parse_count(fields.get("Restarts", "")),
        nodes="" if nodes == "(null)" else nodes,
        submit=parse_epoch(fields.get("SubmitTime", "")),
        start=parse_epoch(fields.get("StartTime", "")),
        end=parse_epoch(fields.get("EndTime", "")),
    )


def is_unknown_job(err: str) -> bool:
    """Say whether scontrol failed because slurmctld no longer knows the job, and for no other cause."""
    return re.search(r"invalid job id", err, re.IGNORECASE) is not None


def scancel(job_ids: Sequence[str], *, signal: str | None = None, cluster: str | None = None) -> list[str]:
    """Return the command that cancels exactly these jobs, or sends them a signal.

    A plain ``scancel`` ends waiting jobs too and reaches batch script and steps; with a signal only running
    jobs are reached. Ids only, never a name or a user: nobody else's job can be hit by a filter.

    Args:
        job_ids: At most a few hundred per call.
        signal: Such as ``USR1``; without it the job is cancelled.
        cluster: The cluster they run on, if their ids came with one.

    Raises:
        DagsterSlurmError: An id is no job id, there is none, or the signal is no signal's name.
    """
    check_job_ids(tuple(job_ids))
    options = []
    if signal is not None:
        if not _SIGNAL.fullmatch(signal):
            raise DagsterSlurmError(f"{signal!r} is no name of a signal.")
        options = [f"--signal={signal}"]
    return query("scancel", *options, *job_ids, cluster=cluster)


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
