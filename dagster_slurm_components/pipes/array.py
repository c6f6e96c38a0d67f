"""Runs a script for a range of partitions as a job array, and hands each partition's results over when it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.jobs.arrays import largest_array
from dagster_slurm_components.pipes.array_attempt import ArrayAttempt
from dagster_slurm_components.pipes.array_call import ArrayCall, Element, ElementFailure, Report, Reports
from dagster_slurm_components.pipes.asset_events import materializations, silent_output
from dagster_slurm_components.pipes.call import Call, wait_for
from dagster_slurm_components.pipes.claim import JobCall
from dagster_slurm_components.pipes.client import carry_out, prepare
from dagster_slurm_components.pipes.context import is_skippable, partition_at, partition_of
from dagster_slurm_components.pipes.partition import template_names
from dagster_slurm_components.pipes.results import in_order
from dagster_slurm_components.pipes.step import Step, next_calls
from dagster_slurm_components.spec.resolve import ResolvedScript

_MOST_NAMES = 50
_MOST_FAILURES = 5


def run_array(context: dg.AssetExecutionContext, resolved: ResolvedScript) -> Iterator[Any]:
    """Run a script once for each partition of a step's range; yield what Dagster is to store, as it comes.

    A partition whose payload did its work is a materialization as soon as that has ended, whatever becomes of the
    others. A retry of the step, or a re-execution after it failed, runs those that are left and no others.

    Raises:
        Failure: Some partitions failed; or the scheduler refused the array.
        DagsterSlurmError: The host refuses us, or a file of the script is missing.
    """
    step, _ = next_calls(context, count=0)
    reports = Reports()
    arrays = _arrays(step, resolved, reports)
    calls = [_begin(array) for array in arrays]
    made: set[dg.AssetKey] = set()
    while True:
        over = all(call.done for call in calls)  # before the last look: nothing comes after it
        for report in reports.take():
            yield from _events(context, report, made)
            report.stored()
        if over:
            break
        wait_for([call for call in calls if not call.done], step.calls, news=reports.news)
    failures = [each for call in calls for each in sorted(call.outcome(), key=lambda end: end.element.number)]
    if failures:
        for result in _checks(context, arrays):
            context.log_event(result.to_asset_check_evaluation(context.get_step_execution_context()))
        raise _failure(failures, sum(len(array.elements) for array in arrays))
    for key in in_order(context, context.selected_asset_keys):
        if key in made or not is_skippable(context, key):
            yield silent_output(context, key)
    yield from _checks(context, arrays)


def _arrays(step: Step, resolved: ResolvedScript, reports: Reports) -> list[ArrayCall]:
    """Return the arrays of a step: as few as the cluster takes, as soon as that was asked."""
    context = step.context
    keys = partition_of(context).keys
    limit = _in_thread(step, lambda stop: _largest(JobCall(step, resolved, 0, {}), stop))
    if limit == 0:
        raise DagsterSlurmError(
            "this cluster allows no job arrays (MaxArraySize)",
            where=str(resolved.position("array") or resolved.profile.name),
            hint="Take `array` out, in this profile at least: one job then gets all partitions of a range.",
        )
    begins = range(0, len(keys), limit)
    arrays = []
    for begin, number in zip(begins, next_calls(context, count=len(begins))[1], strict=True):
        elements = {}
        for place, key in enumerate(keys[begin : begin + limit]):
            partition = partition_at(context, key)
            elements[place] = Element(place, partition, resolved.at_partition(*template_names(partition)))
        arrays.append(ArrayCall(step, resolved, number, {}, elements=elements, reports=reports))
    return arrays


def _largest(call: JobCall, stop: threading.Event) -> int:
    prepare(call, stop)
    return largest_array(call.place, call.resolved.profile.profile.limits.max_submit_jobs)


def _in_thread(step: Step, work: Any) -> Any:
    call = Call(work, name=f"dagster-slurm-{step.key}")
    step.calls.add(call)
    wait_for([call], step.calls)
    return call.outcome()


def _begin(array: ArrayCall) -> Call[Sequence[ElementFailure]]:
    name = f"dagster-slurm-{array.step.key}-{array.number}"
    call = Call(lambda stop: carry_out(array, stop, ArrayAttempt), name=name)
    array.step.calls.add(call)
    return call


def _events(context: dg.AssetExecutionContext, report: Report, made: set[dg.AssetKey]) -> Iterator[Any]:
    """Yield the materializations of one partition; its check results are counted."""
    for result in report.results:
        if isinstance(result, dg.MaterializeResult) and result.asset_key is not None:
            made.add(result.asset_key)
            yield from materializations(context, result.asset_key, result, report.element.partition.key or "")
        elif isinstance(result, dg.AssetCheckResult):
            report.array.count_check(result, report.element.number)


def _checks(context: dg.AssetExecutionContext, arrays: Sequence[ArrayCall]) -> Iterator[dg.AssetCheckResult]:
    """Yield one result for each check that any partition reported: it passed if it did so in all of them."""
    selected = context.selected_asset_check_keys
    reported: dict[dg.AssetCheckKey, dict[str, list[str]]] = {}
    for array in arrays:
        for check, numbers in array.failed_checks.items():
            asset, name, severity = json.loads(check)
            key = dg.AssetCheckKey(dg.AssetKey.from_escaped_user_string(asset), name)
            failed = [array.elements[number].name for number in sorted(numbers)]
            reported.setdefault(key, {}).setdefault(severity, []).extend(failed)
    for key, failures in reported.items():
        names = [name for severity in sorted(failures) for name in failures[severity]]
        warns_alone = names and not failures.get(dg.AssetCheckSeverity.ERROR.value)
        if key in selected:
            yield dg.AssetCheckResult(
                asset_key=key.asset_key,
                check_name=key.name,
                passed=not names,
                severity=dg.AssetCheckSeverity.WARN if warns_alone else dg.AssetCheckSeverity.ERROR,
                metadata={"partitions/failed": names[:_MOST_NAMES], "partitions/failed_count": len(names)},
            )


def _failure(failures: Sequence[ElementFailure], count: int) -> dg.Failure:
    """Return the failure that names each partition that failed."""
    names = [failure.element.name for failure in failures]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    shown = ", ".join(json.dumps(name, ensure_ascii=False) for name in names[:_MOST_NAMES])
    parts = [
        f"{len(failures)} of {count} partitions failed: {shown}{more}. The others are stored; a retry of this step, "
        "or a re-execution from its failure, runs these alone.",
        *(f"Partition {each.element.name}: {each.failure.description}" for each in failures[:_MOST_FAILURES]),
    ]
    return dg.Failure("\n\n".join(parts), allow_retries=any(each.failure.allow_retries for each in failures))
