"""Which run directories may go, from what is known of their jobs, and their removal."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.inputs import INPUTS, parse_inputs
from dagster_slurm_components.jobs.look import JobInfo
from dagster_slurm_components.jobs.records import RunDirectory, exists, observed, run_directories
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.profile import Retention

_AT_ONCE = 500
_SETTLE = 3600.0
"""Seconds for which nothing is removed: the step that made it may not be recorded yet."""


@dataclass(frozen=True)
class Verdict:
    """Whether a run directory goes, and why, for a person to read."""

    folder: RunDirectory
    remove: bool
    why: str


def judge_folders(
    folders: Iterable[tuple[RunDirectory, JobInfo | None]],
    keep: Retention,
    now: float,
    read: Sequence[str] = (),
) -> list[Verdict]:
    """Return what is to be done with each run directory.

    ``now`` is in seconds since the epoch by the host's clock, ``read`` the paths that living jobs have as inputs.
    """
    return [_judge(folder, info, keep, now, read) for folder, info in folders]


def _judge(
    folder: RunDirectory, info: JobInfo | None, keep: Retention, now: float, read: Sequence[str]
) -> Verdict:
    age = now - folder.touched
    success, failure = duration_seconds(keep.success), duration_seconds(keep.failure)
    if age < _SETTLE:
        return Verdict(folder, False, "it changed within the last hour")
    if info is None:
        goes = age >= failure
        why = "nothing was submitted" if goes else "nothing was submitted, or nobody knows"
        return Verdict(folder, goes, why)
    state = info.observation.state
    if info.alive or any(path.startswith(f"{folder.path}/") for path in read):
        why = f"its job is {state}" if info.alive else "a job that waits or runs reads what it made"
        return Verdict(folder, False, why)
    if folder.lease.left:
        return Verdict(folder, False, "the sensor has not reported what came of its job")
    limit, why = failure, f"its job ended: {state}"
    if info.lost:
        why = "its job left no trace"
    elif state == "COMPLETED" and folder.collected:
        limit, why = success, "its results are in Dagster"
    elif state == "COMPLETED":
        why = "its results were never collected"
    if age < limit:
        return Verdict(folder, False, f"{why}; kept for {limit / 86400:g} days")
    return Verdict(folder, True, why)


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


def inputs_of_jobs(satellite: Satellite, run_dirs: Sequence[str]) -> list[str]:
    """Return the paths that jobs in these run directories, and elements of arrays below them, read."""
    paths: list[str] = []
    for begin in range(0, len(run_dirs), _AT_ONCE):
        there = run_dirs[begin : begin + _AT_ONCE]
        # A payload may have files of that name.
        wanted = [
            "-maxdepth",
            "3",
            "-name",
            "payload",
            "-prune",
            "-o",
            "-name",
            INPUTS,
            "-exec",
            "cat",
            "{}",
            "+",
        ]
        text = satellite.run(["find", *there, *wanted], timeout=120.0).stdout.decode("utf-8", "replace")
        decoder, at = json.JSONDecoder(), 0
        while at < len(text):
            found, at = decoder.raw_decode(text, at)
            paths += parse_inputs(found)
    return paths


def clean(place: Target, keep: Retention, *, dry_run: bool = False) -> list[Verdict]:
    """Remove run directories, and return of each whether it went, or with ``dry_run`` whether it would, and why."""
    found = list(observed(place, run_directories(place)))
    read = inputs_of_jobs(
        place.satellite, [folder.path for folder, info in found if info is not None and info.alive]
    )
    verdicts = judge_folders(found, keep, place.satellite.hello().time, read)
    top = f"{place.workdir}/runs"
    if not dry_run and exists(place, top):
        place.satellite.remove(top, paths_to_remove(verdicts))
        # Old ones only: a submission may just be making the folders for its own.
        empty = ["-depth", "-type", "d", "-empty", "-mmin", "+60", "-delete"]
        place.satellite.run(["find", top, "-mindepth", "1", *empty], timeout=120.0)
    return verdicts
