"""Runs one script for many items: several jobs at once, each judged alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.pipes.call import wait_for
from dagster_slurm_components.pipes.client import ComputeJob
from dagster_slurm_components.pipes.results import CompletedJob
from dagster_slurm_components.pipes.step import AnyContext, next_calls
from dagster_slurm_components.spec.resolve import ResolvedScript

ITEM = "DAGSTER_SLURM_ITEM"
"""The variable that holds a payload's item as JSON."""
_LONGEST_ITEM = 100
_MOST_TOLD = 20


def map_script(
    context: AnyContext,
    resolved: ResolvedScript,
    items: Sequence[Any],
    *,
    max_parallel: int | None = None,
    extras: Mapping[str, Any] | None = None,
) -> list[CompletedJob]:
    """Run a script once for each item; see ``ComputeResource.map``."""
    texts = [_json(item, index) for index, item in enumerate(items)]
    if max_parallel is not None and max_parallel < 1:
        raise DagsterSlurmError(f"max_parallel is {max_parallel}", hint="Let at least one job run at a time.")
    # Numbered before any of them runs: a retry finds each item's job whatever order they ended in.
    step, numbers = next_calls(context, count=len(items))
    jobs: list[ComputeJob] = []
    for index, number in enumerate(numbers):
        more = {**(extras or {}), "item": items[index], "index": index}
        jobs.append(ComputeJob(step, resolved, number, more, {ITEM: texts[index]}))
        while len(busy := [job.call for job in jobs if not job.done]) >= (max_parallel or len(items) + 1):
            wait_for(busy, list(step.calls))
    for job in jobs:
        wait_for([job.call], list(step.calls))
    return _results(jobs, texts)


def _json(item: Any, index: int) -> str:
    try:
        return json.dumps(item)
    except (TypeError, ValueError) as error:
        raise DagsterSlurmError(
            f"item {index} can't be handed to a payload: {error}", hint="Use what JSON can hold."
        ) from error


def _results(jobs: Sequence[ComputeJob], texts: Sequence[str]) -> list[CompletedJob]:
    """Return the results in order, or raise one failure that names each item that failed."""
    results: list[CompletedJob] = []
    failures: list[str] = []
    for index, (job, text) in enumerate(zip(jobs, texts, strict=True)):
        try:
            results.append(job.result())
        except (dg.Failure, DagsterSlurmError) as error:
            why = error.description if isinstance(error, dg.Failure) else str(error)
            short = text if len(text) <= _LONGEST_ITEM else f"{text[:_LONGEST_ITEM]}..."
            failures.append(f"Item {index} ({short}): {why}")
    if not failures:
        return results
    more = f"\n\n... and {len(failures) - _MOST_TOLD} more" if len(failures) > _MOST_TOLD else ""
    head = (
        f"{len(failures)} of {len(jobs)} items failed; a retry of this step runs these again, and no other."
    )
    raise dg.Failure("\n\n".join([head, *failures[:_MOST_TOLD]]) + more)
