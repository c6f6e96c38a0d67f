"""A call for many partitions at once: its elements, and what their jobs report to the step."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property

import dagster as dg
from dagster_pipes import PipesContextData

from dagster_slurm_components.jobs.lease import Lease
from dagster_slurm_components.pipes.claim import JobCall
from dagster_slurm_components.pipes.context import Partition, context_data, selection
from dagster_slurm_components.pipes.step import run_of
from dagster_slurm_components.spec.resolve import ResolvedScript

_MOST_ANCESTORS = 64


@dataclass(frozen=True)
class Element:
    """One partition of an array: its number there, and the script as it is for that partition."""

    number: int
    partition: Partition
    resolved: ResolvedScript

    @property
    def name(self) -> str:
        """The partition's key."""
        return str(self.partition.key)


@dataclass(frozen=True)
class ElementFailure:
    """An element that did not do its work, and why."""

    element: Element
    failure: dg.Failure


@dataclass(frozen=True)
class Report:
    """The results of an element that has ended; of one that failed its check results alone.

    Attributes:
        array: The array whose element it is.
        success: Whether the element did its work.
    """

    array: ArrayCall
    element: Element
    results: Sequence[dg.PipesExecutionResult]
    success: bool

    def stored(self) -> None:
        """Dagster has stored the results: they are never handed over again."""
        if self.success:
            self.array.collected.add(self.element.number)


class Reports:
    """Reports on their way from the threads that follow arrays to the step's own, which may yield them to Dagster."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: list[Report] = []
        self._news: Future[None] = Future()

    def put(self, report: Report) -> None:
        """Add a report."""
        with self._lock:
            self._reports.append(report)
            if not self._news.done():
                self._news.set_result(None)

    def take(self) -> Sequence[Report]:
        """Return all that came since the last time."""
        with self._lock:
            taken, self._reports = self._reports, []
            if taken:
                self._news = Future()
        return taken

    @property
    def news(self) -> Future[None]:
        """Done as soon as there is something to take."""
        with self._lock:
            return self._news


@dataclass
class ArrayCall(JobCall):
    """What a step asks for by one array.

    Attributes:
        elements: All of them, by number.
        reports: Where the results go.
        collected: The elements whose results Dagster has stored, by this attempt or one before it.
        failed_checks: The elements that failed a check, by each check that was reported: JSON of its asset's key, its
            name and the severity. Those of earlier attempts are among them.
        failures: The elements that have failed for good.
    """

    elements: Mapping[int, Element] = field(default_factory=dict)
    reports: Reports = field(default_factory=Reports)
    collected: set[int] = field(default_factory=set)
    failed_checks: dict[str, set[int]] = field(default_factory=dict)
    failures: list[ElementFailure] = field(default_factory=list)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all elements."""
        return tuple(element.name for element in self.elements.values())

    @cached_property
    def pipes_context(self) -> PipesContextData:
        """What the payloads are told; each of them beside that of its own partition."""
        context = self.step.context
        return context_data(context, selection(context), self.extras)

    def count_check(self, result: dg.AssetCheckResult, number: int) -> None:
        """Take the result that an element reported of a check."""
        if result.asset_key is not None and result.check_name is not None:
            check = [result.asset_key.to_escaped_user_string(), result.check_name, result.severity.value]
            failed = self.failed_checks.setdefault(json.dumps(check), set())
            failed.discard(number) if result.passed else failed.add(number)

    @property
    def left(self) -> list[int]:
        """The elements that are still to be run."""
        failed = {each.element.number for each in self.failures}
        return [number for number in self.elements if number not in self.collected and number not in failed]

    def goes_on_from(self, lease: Lease) -> bool:
        """Whether what Dagster has of an earlier attempt's elements is what is wanted now."""
        owner = lease.owner.run_id if lease.owner else None
        return bool(lease.note.elements) and owner in self._unfinished and self.unwanted(lease) is None

    @cached_property
    def _unfinished(self) -> frozenset[str]:
        """This run and those that it re-executes, back to the last in which the step succeeded.

        What re-executes a step that has succeeded wants all of it anew.
        """
        return frozenset(self._unfinished_runs())

    def _unfinished_runs(self) -> Iterator[str]:
        yield self.step.run_id
        each = self.step.run
        for _ in range(_MOST_ANCESTORS):
            each = run_of(self.step.instance, each.parent_run_id) if each and each.parent_run_id else None
            if each is None:
                return
            stats = self.step.instance.get_run_step_stats(each.run_id, [self.step.key])
            if any(step.status is not None and step.status.value == "SUCCESS" for step in stats):
                return
            yield each.run_id

    def stored_by(self, run_id: str) -> set[int]:
        """Return the elements whose results a run has stored: its process may have had no time to write that down."""
        context = self.step.context
        wanted = {
            key for key in context.selected_asset_keys if not context.assets_def.specs_by_key[key].skippable
        }
        if not wanted:
            return set()
        made: dict[str, set[dg.AssetKey]] = {}
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        records = self.step.instance.get_records_for_run(run_id, of_type=kind).records
        for record in records:
            event = record.event_log_entry.dagster_event
            if event is not None and event.step_key == self.step.key and event.partition and event.asset_key:
                made.setdefault(event.partition, set()).add(event.asset_key)
        return {
            number for number, element in self.elements.items() if made.get(element.name, set()) >= wanted
        }
