"""What all processes on all machines may ask of this host together: each finds its share in a file.

Slurm's queue and its accounting draw on one budget of queries; who reads files of jobs divides one ceiling.
"""

import contextlib
import os
import time
from typing import Dict, Optional, Sequence

from dagster_slurm_components.hosts.satellite.calls import Budget
from dagster_slurm_components.hosts.satellite.files import make_folder, read_json, write_json
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.hosts.satellite.protocol import Result, native

_NOTED = 60.0


def may_ask(tokens: float, waited: float, budget: Budget, spare: bool = False) -> bool:
    """Return whether the queue, or the accounting, may be asked now.

    Each leaves the last query to the other, unless it has not been asked itself for so many seconds (``waited``) as
    half the budget takes to allow one. So ended jobs always find a query, and a slurmdbd that is down never takes the
    queue's. A query that is only nice to have (``spare``) leaves half of the burst.
    """
    if spare:
        return tokens >= max(2.0, budget.burst / 2)
    return tokens >= 2.0 or (tokens >= 1.0 and waited >= 120.0 / budget.per_minute)


def spend(budget: Optional[Budget], kind: str, spare: bool = False) -> bool:
    """Take a query of a kind from the budget, if there is one; return whether it may be made (``may_ask``).

    A token bucket in a file, full at first: whoever names the same file, in any process on any machine, shares it.
    """
    if budget is None:
        return True
    path = native(budget.path)
    make_folder(os.path.dirname(path))
    with locked(path + b".lock", 10.0):
        now = time.time()
        tokens, filled, asked = float(budget.burst), now, {}
        with contextlib.suppress(ValueError):
            tokens, filled, asked = read_json(path) or (tokens, now, {})
        # max(): a clock that was set back refills nothing.
        tokens = min(budget.burst, tokens + max(0.0, now - filled) * budget.per_minute / 60.0)
        granted = may_ask(tokens, now - asked.get(kind, 0.0), budget, spare)
        if granted:
            tokens, asked = tokens - 1.0, {**asked, kind: now}
        write_json(path, [tokens, now, asked])
    return granted


def share(path: str, who: str, weight: float) -> Result:
    """Note that somebody follows so many jobs; return how many all together follow who noted it within a minute."""
    target = native(path)
    make_folder(os.path.dirname(target))
    with locked(target + b".lock", 10.0):
        now = time.time()
        noted: Dict[str, Sequence[float]] = read_json(target) or {}
        noted = {name: note for name, note in noted.items() if abs(now - note[0]) < _NOTED}
        noted[who] = [now, weight]
        write_json(target, noted)
    return {"total": sum(note[1] for note in noted.values())}
