"""One round of the ownership storm: what happens in it, and what must be true after it. Pure but for ``random``."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

KILL_WORKER, KILL_STEP, TERMINATE, MARK, CUT, TICK, NOTHING = (
    "kill -9 worker",
    "kill -9 step",
    "terminate",
    "mark as cancelled",
    "cut the host off",
    "sensor tick",
    "nothing",
)
_ENDING = (KILL_WORKER, KILL_WORKER, KILL_STEP, TERMINATE, TERMINATE, MARK)
_PASSING = (CUT, CUT, TICK, TICK, NOTHING)


@dataclass(frozen=True)
class Try:
    """One run of a round.

    Attributes:
        all_steps: Whether it re-executes all steps, or from failure; of the first run it says nothing.
        edited: Whether the payload is edited before it.
        begun: Whether the first event waits until the payload has begun; else it comes after ``delay`` seconds.
        delay: Seconds.
        events: What happens, in order; of those that end the run at most the last.
    """

    all_steps: bool
    edited: bool
    begun: bool
    delay: float
    events: tuple[str, ...]


@dataclass(frozen=True)
class Round:
    """One round: several runs that re-execute each other; the last is let go to its end.

    Attributes:
        number: Which one.
        multiprocess: Whether steps have processes of their own.
        tries: Its runs, in order.
    """

    number: int
    multiprocess: bool
    tries: tuple[Try, ...]


def make_round(seed: int, number: int) -> Round:
    """Return a round; the same for the same seed and number."""
    chance = random.Random(f"{seed} {number}")
    multiprocess = chance.random() < 0.15
    tries = []
    for index in range(chance.choice((1, 2, 2, 3))):
        ending = chance.choice(_ENDING)
        if ending == KILL_STEP and not multiprocess:
            ending = KILL_WORKER
        events = [chance.choice(_PASSING) for _ in range(chance.choice((0, 1, 1, 2)))]
        again = index > 0
        tries.append(
            Try(
                all_steps=again and chance.random() < 0.4,
                edited=again and chance.random() < 0.4,
                begun=chance.random() < 0.6,
                delay=chance.uniform(0.2, 3.0),
                events=(*events, ending),
            )
        )
    tries.append(
        Try(chance.random() < 0.4, chance.random() < 0.4, True, 0.0, (chance.choice((TICK, NOTHING, CUT)),))
    )
    return Round(number, multiprocess, tuple(tries))


@dataclass(frozen=True)
class Job:
    """A job as Slurm's accounting tells of it; times in seconds since the epoch, no end while it lives."""

    job_id: str
    start: int | None
    end: int | None


@dataclass(frozen=True)
class Run:
    """A run as Dagster tells of it, and the payload's version when it was launched."""

    run_id: str
    status: str
    version: str


@dataclass(frozen=True)
class Materialization:
    """A result that Dagster stored."""

    run_id: str
    job_id: str
    version: str


def violations(
    jobs: Sequence[Job],
    runs: Mapping[str, Run],
    materializations: Iterable[Materialization],
    *,
    owners: Mapping[str, str],
    told: Iterable[str],
) -> list[str]:
    """Return what must not be true after a round.

    Args:
        jobs: The jobs of its step.
        runs: Its runs.
        materializations: Its results.
        owners: The run that owns each job, by its lease.
        told: Runs of which the sensor said that their job goes on.
    """
    found = []
    ran = sorted((job for job in jobs if job.start is not None), key=lambda job: job.start or 0)
    for one, other in pairwise(ran):
        if one.end is None or (one.end > (other.start or 0)):
            found.append(f"jobs {one.job_id} and {other.job_id} ran at the same time")
    for job in jobs:
        if job.end is not None:
            continue
        run = runs.get(owners.get(job.job_id, ""))
        if run is None:
            found.append(f"job {job.job_id} lives, and no run owns it")
        elif run.status in ("CANCELED", "SUCCESS"):
            found.append(f"job {job.job_id} lives, and run {run.run_id} is {run.status}")
        elif run.status == "FAILURE" and run.run_id not in told:
            found.append(f"job {job.job_id} lives, its run {run.run_id} failed, and nobody was told")
    seen: dict[str, str] = {}
    for result in materializations:
        if result.job_id in seen:
            found.append(f"job {result.job_id} was collected by {seen[result.job_id]} and {result.run_id}")
        seen[result.job_id] = result.run_id
        run = runs.get(result.run_id)
        if run is None or run.version != result.version:
            found.append(f"run {result.run_id} has a result of version {result.version}, not its own")
    return found
