"""Which run directories may go: pure, from what is known of their jobs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dagster_slurm_components.jobs.look import Seen
from dagster_slurm_components.jobs.reconcile import LOST
from dagster_slurm_components.jobs.records import RunDirectory

_SETTLE = 3600.0
"""Seconds for which nothing is removed: the step that made it may not be recorded yet."""


@dataclass(frozen=True)
class Keep:
    """How long run directories are kept, in seconds after their last change.

    Attributes:
        success: Of jobs whose results Dagster has.
        failure: Of all others that have ended.
    """

    success: float
    failure: float


@dataclass(frozen=True)
class Verdict:
    """What is to be done with a run directory.

    Attributes:
        folder: The run directory.
        remove: Whether it goes.
        why: What a person reads.
    """

    folder: RunDirectory
    remove: bool
    why: str


def judge_folders(found: Iterable[tuple[RunDirectory, Seen | None]], keep: Keep, now: float) -> list[Verdict]:
    """Return what is to be done with each run directory.

    Args:
        found: Run directories with what is known of their jobs.
        keep: How long they are kept.
        now: Seconds since the epoch, by the host's clock.
    """
    return [_judge(folder, seen, keep, now) for folder, seen in found]


def _judge(folder: RunDirectory, seen: Seen | None, keep: Keep, now: float) -> Verdict:
    age = now - folder.touched
    if age < _SETTLE:
        return Verdict(folder, False, "it changed within the last hour")
    if seen is not None and seen.alive:
        return Verdict(folder, False, f"its job is {seen.observation.state}")
    if seen is None and age < keep.failure:
        return Verdict(folder, False, "nothing was submitted, or nobody knows")
    success = seen is not None and seen.observation.state == "COMPLETED" and folder.collected
    limit = keep.success if success else keep.failure
    word = "its results are in Dagster" if success else _ended(seen)
    if age < limit:
        return Verdict(folder, False, f"{word}; kept for {limit / 86400:g} days")
    return Verdict(folder, True, word)


def _ended(seen: Seen | None) -> str:
    if seen is None:
        return "nothing was submitted"
    if seen.observation.state == "COMPLETED":
        return "its results were never collected"
    if seen.observation.state == LOST:
        return "its job left no trace"
    return f"its job ended: {seen.observation.state}"


def paths_to_remove(verdicts: Iterable[Verdict]) -> list[str]:
    """Return what goes: run directories, the checkpoints that they set aside, and what all attempts at a call share."""
    attempts: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        attempts.setdefault(verdict.folder.path.rpartition("/")[0], []).append(verdict)
    paths = []
    for call, judged in attempts.items():
        going = [verdict.folder for verdict in judged if verdict.remove]
        paths += [path for each in going for path in (each.path, f"{call}/checkpoint-{each.attempt}")]
        if len(going) == len(judged):
            paths += [f"{call}/checkpoint", f"{call}/.lock"]
    return paths
