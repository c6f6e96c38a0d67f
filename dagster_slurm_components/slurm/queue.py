"""What waits and runs: ``squeue``, asked once for all jobs of the user.

Why ``--me`` and not the list of our ids: for two or more ids squeue fetches *every job of the cluster* and filters on
the client's side (``src/squeue/squeue.c``, 20.11 to 25.11), while slurmctld itself filters by user. All processes and
machines of a user ask the same question and can share one answer, and an unknown id can't turn a good answer into an
error (``squeue --jobs=1`` fails when the one job is gone). ``--me`` exists since 20.02.
"""

from dataclasses import dataclass

from dagster_slurm_components.slurm import states
from dagster_slurm_components.slurm.commands import check_name, is_printed_id
from dagster_slurm_components.units import parse_count, parse_epoch

# ``:|`` gives a column no width (nothing is cut) and ends it with a bar. The reason comes last because it can
# be free text, which a burst buffer plugin or a site's own scheduler writes. The job's name isn't asked for:
# anyone can put bars and line breaks into a name.
_COLUMNS = ("JobArrayID", "State", "StartTime", "RestartCnt", "Requeue", "Reason")
_FORMAT = ",".join(f"{column}:|" for column in _COLUMNS)

# ``all``: ended jobs stay visible for MinJobAge, which proves their end without the accounting. ``--all``
# shows hidden partitions; without it a job there looks vanished.
# ``--array``: a row for each task. The waiting ones in one row (``123_[5-9]``) would be cut after 64 characters.
_ARGUMENTS = ("--me", "--all", "--array", "--states=all", "--noheader", f"--Format={_FORMAT}")

_OVER = "|".join(name for name, row in states.STATES.items() if row.phase is states.Phase.TERMINAL)
LIVE = rf"^\s*(\d[^|\s]*)\s*\|(?!\s*(?:{_OVER})\s*\|)"
"""Regular expression of a line of squeue's answer about a job that is not over; group 1 is its id."""


@dataclass(frozen=True)
class QueueRow:
    """One job in slurmctld's memory, or one task of an array: ``123_4``.

    Attributes:
        state: The state's long name, such as ``PENDING``.
        reason: Why it waits, or why it ended; see ``reasons.explain``.
        start: When it started, or is expected to, in seconds since 1970.
        restarts: How often Slurm requeued it.
        requeue: Whether Slurm may requeue it, when its node fails or another job preempts it.
    """

    job_id: str
    state: str
    reason: str | None = None
    start: int | None = None
    restarts: int | None = None
    requeue: bool | None = None


def squeue(name: str | None = None) -> list[str]:
    """Return the command that lists all jobs of the user, or those of exactly this name, which is checked.

    It lists them in any state that slurmctld still remembers.
    """
    if name is None:
        return ["squeue", *_ARGUMENTS]
    check_name(name)
    return ["squeue", *_ARGUMENTS, f"--name={name}"]


def parse_squeue(out: str) -> dict[str, QueueRow]:
    """Read squeue's answer, by job id. Lines that are no row are skipped, such as ``CLUSTER: name``.

    A job that is missing here is gone from slurmctld's memory *only* if the query itself was good: ask
    ``replies.query_failure`` first.
    """
    rows = {}
    for line in out.split("\n"):
        fields = [field.strip() for field in line.split("|", len(_COLUMNS) - 1)]
        if len(fields) != len(_COLUMNS) or not is_printed_id(fields[0]):
            continue
        job_id, word, start, restarts, requeue, reason = fields
        reason = reason.removesuffix("|").strip()
        rows[job_id] = QueueRow(
            job_id=job_id,
            state=states.state(word).name,
            reason=None if reason in {"", "None", "(null)"} else reason,
            start=parse_epoch(start),
            restarts=parse_count(restarts),
            requeue={"0": False, "1": True}.get(requeue),
        )
    return rows
