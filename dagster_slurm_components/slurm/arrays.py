"""Job arrays, as Slurm writes them: ``--array=0-9,17%50``, the ids of their tasks, and the array as a whole."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from typing import TypeVar

from dagster_slurm_components.slurm.accounting import AccountingRow
from dagster_slurm_components.slurm.queue import QueueRow
from dagster_slurm_components.slurm.states import Phase, state

Row = TypeVar("Row", QueueRow, AccountingRow)

MAX_ARRAY_SIZE = ("scontrol", "show", "config")
"""The command whose answer ``parse_max_array_size`` reads."""
_SACCTMGR = ("sacctmgr", "--noheader", "--parsable2", "show")
QOS_LIMITS = (*_SACCTMGR, "qos", "format=Name,MaxSubmitPU,GrpSubmit")
"""The command whose answer ``submit_limit`` reads, for the QOS that a job names; ``user_limits`` is the other."""
_DEFAULT_SIZE = 1001
_TASK = re.compile(r"([1-9][0-9]*)_[0-9]+")
_MOST_ALIVE = (Phase.RUNNING, Phase.ENDING, Phase.WAITING, Phase.TERMINAL)


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as Slurm writes a set of them.

    Example:
        >>> ranges([17, 0, 1, 2])
        '0-2,17'
    """
    words = []
    for _, group in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        words.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ",".join(words)


def numbers_in(text: str) -> frozenset[int]:
    """Return the numbers that ``ranges`` wrote.

    Example:
        >>> sorted(numbers_in("0-2,17"))
        [0, 1, 2, 17]
    """
    spans = [[int(end) for end in word.split("-")] for word in text.split(",") if word]
    return frozenset(number for span in spans for number in range(span[0], span[-1] + 1))


def array_option(tasks: Iterable[int], max_parallel: int | None) -> str:
    """Return the value of ``--array``; of the tasks at most ``max_parallel`` run at a time."""
    return ranges(tasks) + (f"%{max_parallel}" if max_parallel else "")


def with_whole_arrays(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Return the rows of tasks, by their ids (``123_4``), and beside them one row for each array (``123``).

    It is the row of the task that is most alive; where all have ended, of one that did not end well. So an array can be
    looked at, waited for and ended as any other job.
    """
    tasks: dict[str, list[Row]] = {}
    for job_id, row in rows.items():
        match = _TASK.fullmatch(job_id)
        if match:
            tasks.setdefault(match[1], []).append(row)
    return {**rows, **{array: replace(min(each, key=_life), job_id=array) for array, each in tasks.items()}}


def _life(row: QueueRow | AccountingRow) -> tuple[int, bool]:
    return _MOST_ALIVE.index(state(row.state).phase), row.state == "COMPLETED"


def parse_max_array_size(out: str) -> int:
    """Return one more than the largest number that a task may have, by ``MAX_ARRAY_SIZE``; 0 forbids arrays.

    Example:
        >>> parse_max_array_size("MaxArraySize            = 1001")
        1001
    """
    match = re.search(r"(?m)^MaxArraySize\s*=\s*(\d+)", out)
    size = int(match[1]) if match else _DEFAULT_SIZE
    return size if size > 1 else 0


def user_limits(user: str) -> tuple[str, ...]:
    """Return the command that lists, by account, how many jobs a user may have; ``submit_limit`` reads it."""
    return (*_SACCTMGR, "assoc", f"user={user}", "format=Account,MaxSubmitJobs,GrpSubmitJobs")


def submit_limit(out: str, name: str | None) -> int | None:
    r"""Return the smallest limit in the row of a name, or without one in all rows; nothing where there is none.

    Of all accounts that a job may be charged to, the strictest counts: an array that Slurm refuses as too large waits
    for ever.

    Example:
        >>> submit_limit("proj1|100|\nproj2||50", None), submit_limit("proj1|100|\nproj2||50", "proj1")
        (50, 100)
    """
    rows = [line.split("|") for line in out.splitlines()]
    limits = [word for row in rows if name in (None, row[0]) for word in row[1:] if word.strip().isdigit()]
    return min(map(int, limits), default=None)
