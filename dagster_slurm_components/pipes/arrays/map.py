"""Runs a payload once for each of many items: as a job array where the cluster takes arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import dagster as dg

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.pipes.arrays.call import Element, Reports
from dagster_slurm_components.pipes.arrays.run import arrays_of, begin, failures_of, largest, reports_of
from dagster_slurm_components.pipes.call import wait_for
from dagster_slurm_components.pipes.claim import JobCall
from dagster_slurm_components.pipes.client import ComputeJob
from dagster_slurm_components.pipes.context import AnyContext
from dagster_slurm_components.pipes.results import CompletedJob
from dagster_slurm_components.pipes.step import Step, next_calls
from dagster_slurm_components.spec.resolve import ResolvedScript
from dagster_slurm_components.spec.script import Array

ITEM = "DAGSTER_SLURM_ITEM"
"""The variable that holds a payload's item as JSON."""
_LONGEST_ITEM = 100
_MOST_FAILURES = 20


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
    step, _ = next_calls(context, count=0)
    elements = []
    for index, text in enumerate(texts):
        more = {**(extras or {}), "item": items[index], "index": index}
        name = f"Item {index} ({text if len(text) <= _LONGEST_ITEM else f'{text[:_LONGEST_ITEM]}...'})"
        elements.append(Element(index, name, resolved, env={ITEM: text}, extras=more))
    # This machine runs as many processes side by side as it is asked to, and each may well be one of its own.
    limit = largest(step, resolved) if len(items) > 1 and resolved.profile.profile.scheduler == "slurm" else 0
    if limit:
        return _as_arrays(step, resolved, elements, limit, Array(max_parallel=max_parallel))
    return _as_jobs(step, elements, max_parallel)


def _as_arrays(
    step: Step, resolved: ResolvedScript, elements: Sequence[Element], limit: int, settings: Array
) -> list[CompletedJob]:
    reports = Reports()
    arrays = arrays_of(step, resolved, elements, limit, settings, reports=reports, streams=False)
    calls = [begin(array) for array in arrays]
    begins = {
        array.number: begins_at
        for array, begins_at in zip(arrays, range(0, len(elements), limit), strict=True)
    }
    completed: dict[int, CompletedJob] = {}
    for report in chain.from_iterable(reports_of(step, calls, reports)):
        if report.success:
            completed[begins[report.array.number] + report.element.number] = report.completed
    failed = [f"{end.element.name}: {_why(end.failure)}" for end in failures_of(arrays, calls)]
    _raise_failures(failed, len(elements))
    return [completed[index] for index in range(len(elements))]


def _as_jobs(step: Step, elements: Sequence[Element], max_parallel: int | None) -> list[CompletedJob]:
    # Numbered before any of them runs: a retry finds each item's job whatever order they ended in.
    _, numbers = next_calls(step.context, count=len(elements))
    jobs: list[ComputeJob] = []
    for each, number in zip(elements, numbers, strict=True):
        jobs.append(ComputeJob(JobCall(step, each.resolved, number, each.extras, each.env)))
        while len(busy := [job.call for job in jobs if not job.done]) >= (max_parallel or len(elements) + 1):
            wait_for(busy, step.calls)
    for job in jobs:
        wait_for([job.call], step.calls)
    results, failures = [], []
    for each, job in zip(elements, jobs, strict=True):
        try:
            results.append(job.result())
        except (dg.Failure, DagsterSlurmError) as error:
            failures.append(f"{each.name}: {_why(error)}")
    _raise_failures(failures, len(elements))
    return results


def _why(error: dg.Failure | DagsterSlurmError) -> str | None:
    return error.description if isinstance(error, dg.Failure) else str(error)


def _raise_failures(failures: Sequence[str], count: int) -> None:
    """Raise one failure that names each item that failed, if any did."""
    if not failures:
        return
    more = f"\n\n... and {len(failures) - _MOST_FAILURES} more" if len(failures) > _MOST_FAILURES else ""
    head = f"{len(failures)} of {count} items failed; a retry of this step runs these again, and no other."
    raise dg.Failure("\n\n".join([head, *failures[:_MOST_FAILURES]]) + more)


def _json(item: Any, index: int) -> str:
    try:
        return json.dumps(item)
    except (TypeError, ValueError) as error:
        raise DagsterSlurmError(
            f"item {index} can't be handed to a payload: {error}", hint="Use what JSON can hold."
        ) from error
