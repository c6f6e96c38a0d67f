"""A call for many partitions at once: its elements, and what their jobs report to the step."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import dagster as dg
from dagster_pipes import PipesContextData

from dagster_slurm_components.jobs.lease import COLLECTED, Lease
from dagster_slurm_components.jobs.model import JobHandle, JobIdentity
from dagster_slurm_components.jobs.takeover import Claim
from dagster_slurm_components.pipes.claim import JobCall
from dagster_slurm_components.pipes.context import (
    Partition,
    at_partition,
    context_data,
    selection,
    session_of,
)
from dagster_slurm_components.pipes.results import CompletedJob
from dagster_slurm_components.pipes.step import unfinished_runs
from dagster_slurm_components.spec.resolve import ResolvedScript
from dagster_slurm_components.spec.script import Array


@dataclass(frozen=True)
class Element:
    """One element of an array: a partition of a range, or an item of ``map``.

    Attributes:
        number: Its number in the array.
        name: What a person calls it: the partition's key.
        resolved: The script as it is for this one.
        partition: The one partition that it is for; an item is for that of its step.
        env: Variables for it alone; ``extras``: what its payload receives beside what all do.
    """

    number: int
    name: str
    resolved: ResolvedScript
    partition: Partition | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its name, at the beginning of a sentence."""
        return f"Partition {self.name}" if self.partition else self.name

    def told(self, everyone: PipesContextData) -> PipesContextData:
        """Return what its payload is told, by what all are."""
        data = everyone if self.partition is None else at_partition(everyone, self.partition)
        return {**data, "extras": {**data["extras"], **self.extras}}


@dataclass(frozen=True)
class ElementFailure:
    """An element that did not do its work, and why."""

    element: Element
    failure: dg.Failure


@dataclass(frozen=True)
class Report:
    """What an element that has ended reports: of one that failed its check results alone."""

    array: ArrayCall
    element: Element
    completed: CompletedJob
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
        settings: How they are spread over tasks.
        reports: Where the results go.
        streams: Whether the step stores the results of each as they come. If not, it gets all of them in the end, and
            a retry reads those of an earlier attempt again.
        collected: The elements whose results Dagster has stored, by this attempt or one before it; where results are
            not streamed, those that did their work in this one.
        earlier: The elements that did their work in an earlier attempt, and whose results are to be read again.
        failed_checks: The elements that failed a check, by each check that was reported: JSON of its asset's key, its
            name and the severity. Those of earlier attempts are among them.
        failures: The elements that have failed for good, or that were silent about a check.
        handed_over: The elements whose results were taken, where they are not streamed; ``collect`` is called once they
            are all.
    """

    elements: Mapping[int, Element] = field(default_factory=dict)
    settings: Array = field(default_factory=Array)
    reports: Reports = field(default_factory=Reports)
    streams: bool = True
    earlier: dict[int, JobHandle] = field(default_factory=dict)
    collected: set[int] = field(default_factory=set)
    failed_checks: dict[str, set[int]] = field(default_factory=dict)
    failures: list[ElementFailure] = field(default_factory=list)
    handed_over: set[int] = field(default_factory=set)
    collect: Callable[[], None] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """What the elements are for."""
        return tuple(
            f"{each.name} {dict(each.env)}" if each.env else each.name for each in self.elements.values()
        )

    def equip(self, *, sure: bool = False) -> None:
        """Have the software of all elements on their host, and know what they read."""
        super().equip(sure=sure)
        if self.resolved.script.inputs:
            self.inputs.look_up(self._jobs)

    @property
    def _jobs(self) -> list[tuple[ResolvedScript, Partition]]:
        return [(each.resolved, each.partition or self.partition) for each in self.elements.values()]

    @property
    def input_digests(self) -> Sequence[Mapping[str, object]]:
        """What the inputs of each element consist of."""
        return [self.inputs.of(*job).digest for job in self._jobs] if self.resolved.script.inputs else []

    @cached_property
    def pipes_context(self) -> PipesContextData:
        """What the payloads are told; each of them beside that of its own partition."""
        context = self.step.context
        return context_data(context, selection(context), self.extras)

    def count_check(self, result: dg.AssetCheckResult, number: int) -> None:
        """Take the result that an element reported of a check."""
        if result.asset_key is not None and result.check_name is not None:
            asset = result.asset_key.to_escaped_user_string()
            for severity in dg.AssetCheckSeverity:  # an earlier attempt may have found another one
                check = json.dumps([asset, result.check_name, severity.value])
                failed = self.failed_checks.setdefault(check, set())
                found = severity is result.severity and not result.passed
                failed.add(number) if found else failed.discard(number)

    @property
    def unsettled(self) -> set[int]:
        """The elements whose results are stored, and that a retry runs again: else the same check would end it."""
        unsettled = {each.element.number for each in self.failures}
        for spec in self.step.context.assets_def.check_specs if self.failed_checks else ():
            check = [spec.asset_key.to_escaped_user_string(), spec.name, dg.AssetCheckSeverity.ERROR.value]
            unsettled |= self.failed_checks.get(json.dumps(check), set()) if spec.blocking else set()
        return unsettled

    def hand_over(self, number: int) -> None:
        """The results of an element were taken; those of the last one close the lease."""
        self.handed_over.add(number)
        if self.handed_over >= set(self.elements) and self.collect is not None:
            self.collect()

    @property
    def left(self) -> list[int]:
        """The elements that are still to be run."""
        over = {*self.collected, *self.earlier, *(each.element.number for each in self.failures)}
        return [number for number in self.elements if number not in over]

    def goes_on_from(self, lease: Lease) -> bool:
        """Whether what was done in an earlier attempt is what is wanted now."""
        return (
            lease.owner is not None and lease.owner.run_id in self.unfinished and self.unwanted(lease) is None
        )

    @cached_property
    def unfinished(self) -> frozenset[str]:
        """The runs from which is gone on."""
        return unfinished_runs(self.step)

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


@dataclass
class ElementCall(JobCall):
    """A call for one element as a job of its own: where there are no arrays.

    Attributes:
        array: Of which it would be an element.
    """

    element: Element = field(kw_only=True)
    array: ArrayCall = field(kw_only=True)

    @property
    def settled(self) -> bool:
        """Whether a retry has no reason to run it again, now that its results are stored."""
        return self.element.number not in self.array.unsettled

    @property
    def partition(self) -> Partition:
        """The one partition that it is for."""
        return self.element.partition or super().partition

    @property
    def identity(self) -> JobIdentity:
        """Which job its first attempt is."""
        return replace(super().identity, partition=self.element.name)

    def session(self, reader: dg.PipesMessageReader, run_dir: str) -> dg.PipesSession:
        """Open a Pipes session for a job in a run directory."""
        return session_of(self.step.context, reader, run_dir, self.element.told(self.array.pipes_context))

    def was_collected(self, claim: Claim) -> bool:
        """Whether its results have been stored by an earlier try."""
        last = claim.attempts[-1].lease if claim.attempts and not claim.adopted else None
        if last is None or last.state != COLLECTED or last.owner is None:
            return False
        return last.owner.run_id in self.array.unfinished and self.unwanted(last) is None
