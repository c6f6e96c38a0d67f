"""Runs a script for a range of partitions as a job array, and hands each partition's results over when it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
from dagster_shared.record import replace as record_replace

from dagster_slurm_components.jobs.arrays import largest_array
from dagster_slurm_components.jobs.element_map import DONE, element_map
from dagster_slurm_components.pipes.arrays.attempt import ArrayAttempt, ElementAttempt
from dagster_slurm_components.pipes.arrays.call import (
    ArrayCall,
    Element,
    ElementCall,
    ElementFailure,
    Report,
    Reports,
)
from dagster_slurm_components.pipes.asset_events import (
    Origin,
    materializations,
    newest,
    origins,
    silent_output,
    stored_together,
)
from dagster_slurm_components.pipes.call import Call, wait_for
from dagster_slurm_components.pipes.claim import JobCall
from dagster_slurm_components.pipes.client import carry_out, prepare
from dagster_slurm_components.pipes.context import is_skippable, partition_at, partition_of
from dagster_slurm_components.pipes.failure import unreported
from dagster_slurm_components.pipes.partition import template_names
from dagster_slurm_components.pipes.records import tell
from dagster_slurm_components.pipes.results import in_order
from dagster_slurm_components.pipes.step import Step, next_calls
from dagster_slurm_components.spec.resolve import ResolvedScript
from dagster_slurm_components.spec.script import Array

_MOST_NAMES = 50
_MOST_FAILURES = 5
_MOST_TOGETHER = 50
"""Partitions whose results are stored in one transaction: a fraction of a second."""
_MOST_PLAIN = 100
"""Jobs that wait or run at a time where there are no arrays: each has a thread here."""

Running = Call[Sequence[ElementFailure]]


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
    arrays, calls = _begin_all(step, resolved, reports)
    made_from, made = origins(context, context.selected_asset_keys), set[dg.AssetKey]()
    most = 1 if _one_by_one(context, made_from) else _MOST_TOGETHER
    for several in reports_of(step, calls, reports):
        for begins in range(0, len(several), most):
            with stored_together(context.instance) as afterwards:
                for report in several[begins : begins + most]:
                    yield from _events(context, report, made_from, made)
                    afterwards.append(report.stored)
    failures = failures_of(arrays, calls)
    drawn = _map(arrays)
    tell(step, f"All {sum(len(array.elements) for array in arrays)} elements have ended.", drawn)
    if failures:
        for result in _checks(context, arrays):
            context.log_event(result.to_asset_check_evaluation(context.get_step_execution_context()))
        raise _failure(failures, sum(len(array.elements) for array in arrays), drawn)
    for key in in_order(context, context.selected_asset_keys):
        if key in made or not is_skippable(context, key):
            yield silent_output(context, key)
    yield from _checks(context, arrays)


def _one_by_one(context: dg.AssetExecutionContext, made_from: Sequence[Origin]) -> bool:
    """Whether events of one partition name what was stored of it just before."""
    bound = any(spec.partitions_def is not None for spec in context.assets_def.check_specs)
    return bound or any(origin.within for origin in made_from)


def reports_of(step: Step, calls: Sequence[Running], reports: Reports) -> Iterator[Sequence[Report]]:
    """Yield what elements report, as it comes, until all calls have ended."""
    while True:
        busy = [call for call in calls if not call.done]  # before the last look: nothing comes after it
        yield reports.take()
        if not busy:
            return
        wait_for(busy, step.calls, news=reports.news)


def failures_of(arrays: Sequence[ArrayCall], calls: Sequence[Running]) -> list[ElementFailure]:
    """Return the failures of arrays whose calls have ended, in the order of their elements; or raise a call's error."""
    for call in calls:
        call.outcome()
    return [each for array in arrays for each in sorted(array.failures, key=lambda end: end.element.number)]


def _begin_all(
    step: Step, resolved: ResolvedScript, reports: Reports
) -> tuple[Sequence[ArrayCall], Sequence[Running]]:
    """Begin arrays for a step's range: as few as the cluster takes. Where it takes none, each is a job of its own."""
    context, settings = step.context, resolved.script.array or Array()
    elements = []
    for number, key in enumerate(partition_of(context).keys):
        partition = partition_at(context, key)
        at_key = resolved.at_partition(*template_names(partition))
        elements.append(Element(number, str(partition.key), at_key, partition))
    limit = largest(step, resolved)
    arrays = arrays_of(step, resolved, elements, limit or len(elements), settings, reports=reports)
    if limit:
        return arrays, [begin(array) for array in arrays]
    most, left = min(settings.max_parallel or _MOST_PLAIN, len(elements)), iter(elements)
    return arrays, [_begin_plain(arrays[0], left, number) for number in range(most)]


def arrays_of(
    step: Step, resolved: ResolvedScript, elements: Sequence[Element], limit: int, settings: Array, **how: Any
) -> list[ArrayCall]:
    """Return arrays of at most ``limit`` elements; what may run at a time is divided between them."""
    begins = range(0, len(elements), limit)
    if settings.max_parallel:
        most = max(1, settings.max_parallel // len(begins))
        settings = settings.model_copy(update={"max_parallel": most})
    _, numbers = next_calls(step.context, count=len(begins))
    arrays = []
    for begins_at, number in zip(begins, numbers, strict=True):
        chunk = enumerate(elements[begins_at : begins_at + limit])
        renumbered = {place: replace(each, number=place) for place, each in chunk}
        arrays.append(ArrayCall(step, resolved, number, {}, elements=renumbered, settings=settings, **how))
    return arrays


def largest(step: Step, resolved: ResolvedScript) -> int:
    """Return how many elements an array may have, once that was asked; 0 where there are no arrays."""

    def ask(stop: threading.Event) -> int:
        call = JobCall(step, resolved, 0, {})
        prepare(call, stop)
        return largest_array(call.place, resolved)

    return step.calls.run(ask, name=step.key)


def begin(array: ArrayCall) -> Running:
    """Begin to run an array."""
    name = f"{array.step.key}-{array.number}"
    return array.step.calls.begin(lambda stop: carry_out(array, stop, ArrayAttempt), name=name)


def _begin_plain(array: ArrayCall, elements: Iterator[Element], number: int) -> Running:
    """Begin to run elements as jobs of their own, one after the other; others take from the same elements."""
    step = array.step

    def run(stop: threading.Event) -> Sequence[ElementFailure]:
        for each in elements:
            own, label = each.resolved, f"[{each.name}] "
            call = ElementCall(step, own, array.number, {}, {}, label, element=each, array=array)
            try:
                completed = carry_out(call, stop, ElementAttempt)
            except dg.Failure as failure:
                array.failures.append(ElementFailure(each, failure))
            else:
                if completed is not None:
                    array.reports.put(Report(array, each, completed, success=True))
        return array.failures

    return step.calls.begin(run, name=f"{step.key}-{array.number}-{number}")


def _events(
    context: dg.AssetExecutionContext, report: Report, made_from: Sequence[Origin], seen: set[dg.AssetKey]
) -> Iterator[dg.AssetMaterialization]:
    """Yield the materializations of one partition; its check results are counted, and stored where they have one."""
    step, element, completed = context.get_step_execution_context(), report.element, report.completed
    key = element.partition.key if element.partition else None
    told = completed.get_results() if report.success else completed.check_results
    due = context.selected_asset_check_keys if report.success else ()
    reported = {(result.asset_key, result.check_name) for result in completed.check_results}
    if missing := {(each.asset_key, each.name) for each in due} - reported:
        why = unreported(context.op_def.name, element.resolved, missing, completed.metadata)
        report.array.failures.append(ElementFailure(element, why))
    absent = [dg.AssetCheckResult(passed=False, asset_key=asset, check_name=name) for asset, name in missing]
    results = [*told[:], *absent]  # of a copy: who comes to the end of `told` says that all of it is stored
    made: dict[dg.AssetKey, dg.MaterializeResult[Any]] = {}
    for result in results:
        if isinstance(result, dg.MaterializeResult) and result.asset_key is not None:
            # What code around the script has added by `context.add_asset_metadata`.
            added = [step.get_asset_metadata(result.asset_key, each) or {} for each in (None, key)]
            metadata: dict[str, Any] = {**(result.metadata or {}), **added[0], **added[1]}
            made[result.asset_key] = result._replace(metadata=metadata)
    seen.update(made)
    yield from materializations(context.instance, made_from, made, [key])
    for asset in made:  # a check that comes now is about what was just stored
        step.wipe_input_asset_version_info(asset)
    for result in results:
        if isinstance(result, dg.AssetCheckResult):
            report.array.count_check(result, element.number)
            if key is not None:
                _store_check(context, result, str(key), bound=report.success)
    for _ in told:  # to its end
        pass


def _store_check(
    context: dg.AssetExecutionContext, result: dg.AssetCheckResult, partition: str, *, bound: bool
) -> None:
    """Store a check's result of one partition, ``bound`` to the partition's newest materialization."""
    partitioned = {
        (spec.asset_key, spec.name)
        for spec in context.assets_def.check_specs
        if spec.partitions_def is not None
    }
    if (result.asset_key, result.check_name) in partitioned:
        evaluation = result.to_asset_check_evaluation(context.get_step_execution_context())
        target = newest(context.instance, evaluation.asset_key, partition) if bound else None
        context.log_event(record_replace(evaluation, partition=partition, target_materialization_data=target))


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


def _map(arrays: Sequence[ArrayCall]) -> dict[str, dg.MetadataValue]:
    """Return how all elements have ended, as one picture."""
    states: list[str] = []
    for array in arrays:
        ends = {each.element.number: each.failure.metadata.get("job/state") for each in array.failures}
        failed = {number: str(end.value) if end else "FAILED" for number, end in ends.items()}
        states += [failed.get(number, DONE) for number in sorted(array.elements)]
    return {"job/elements": dg.MetadataValue.md(element_map(states))}


def _failure(
    failures: Sequence[ElementFailure], count: int, metadata: dict[str, dg.MetadataValue]
) -> dg.Failure:
    """Return the failure that names each partition that failed."""
    names = [failure.element.name for failure in failures]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    shown = ", ".join(json.dumps(name, ensure_ascii=False) for name in names[:_MOST_NAMES])
    parts = [
        f"{len(failures)} of {count} partitions failed: {shown}{more}. The others are stored; a retry of this step, "
        "or a re-execution from its failure, runs these alone.",
        *(f"{each.element.title}: {each.failure.description}" for each in failures[:_MOST_FAILURES]),
    ]
    retry = any(each.failure.allow_retries for each in failures)
    return dg.Failure("\n\n".join(parts), metadata=metadata, allow_retries=retry)
