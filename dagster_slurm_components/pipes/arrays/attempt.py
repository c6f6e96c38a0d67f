"""One attempt at an array: submits what is left of it, or takes up the array there is, and hears all elements end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from dagster_slurm_components.jobs.bundle import array_of
from dagster_slurm_components.jobs.events import MESSAGES, Ended
from dagster_slurm_components.jobs.lease import COLLECTED, SUCCESS, ArrayPosition, Attempt
from dagster_slurm_components.jobs.model import ELEMENTS, JobHandle, JobSpec, tasks_of
from dagster_slurm_components.jobs.outcome import judge
from dagster_slurm_components.jobs.retry import NextAttempt
from dagster_slurm_components.pipes.arrays.call import ArrayCall, ElementCall, ElementFailure, Report
from dagster_slurm_components.pipes.arrays.listen import ArrayListener, FollowedElement
from dagster_slurm_components.pipes.attempt import AttemptRun, JobAttempt
from dagster_slurm_components.pipes.context import session_of
from dagster_slurm_components.pipes.follow import Follower
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.pipes.results import CompletedJob, typed
from dagster_slurm_components.slurm.arrays import numbers_in, ranges
from dagster_slurm_components.spec.script import Array

_WAIT = 0.05
_MOST_TOLD = 20
"""Failures of elements that are told at once: of an array that is cancelled, say, all fail."""


@dataclass
class ArrayAttempt(AttemptRun[ArrayCall, Sequence[ElementFailure]]):
    """An attempt of an array."""

    _again: list[NextAttempt] = field(default_factory=list)
    _handed_over: set[int] = field(default_factory=set)

    def perform(self) -> Sequence[ElementFailure] | NextAttempt:
        """Return the elements that failed for good, or the attempt that is to be made of those that are left."""
        call = self.call
        self._recall()
        if not (call.left or self.claim.adopted):
            return call.failures
        handle = self._array()
        listener = ArrayListener(call, self.claim, handle, self._element_ended)
        Follower(call, self.claim, handle, listener).run()
        while self._handed_over - call.collected:
            call.guard.pause(_WAIT)
        done = not (self._again or call.failures)
        ended_at = self._close(SUCCESS if done else "FAILED", listener.shown)
        if done and call.streams:
            self._collect()
        elif done:
            call.collect = partial(self._collect_stored, ended_at)
        return self._next() if self._again else call.failures

    def _recall(self) -> None:
        """Learn from earlier attempts what Dagster has already."""
        call, claim = self.call, self.claim
        for attempt in claim.attempts:
            taken_over = claim.adopted and attempt is claim.attempts[-1]
            note, state = attempt.lease.note, attempt.lease.state
            if not (note.elements and (taken_over or call.goes_on_from(attempt.lease))):
                continue
            if state == COLLECTED and not call.streams:
                call.earlier.clear()  # handed over, all of them: what comes after that begins anew
                continue
            shown = attempt.lease.shown
            if isinstance(shown, ArrayPosition) and not call.streams:
                self._recall_results(attempt, numbers_in(shown.collected) if not taken_over else ())
            elif isinstance(shown, ArrayPosition):
                call.collected |= numbers_in(shown.collected)
                for check, numbers in shown.failed_checks.items():
                    call.failed_checks.setdefault(check, set()).update(numbers_in(numbers))
            if taken_over and call.streams and attempt.lease.owner is not None:
                call.collected |= call.stored_by(attempt.lease.owner.run_id)

    def _recall_results(self, attempt: Attempt, numbers: Collection[int]) -> None:
        """Remember where an earlier attempt has the results of elements."""
        note, array = attempt.lease.note, attempt.handle
        if array is None:
            return
        for task in tasks_of(numbers_in(note.elements), note.keys_per_task):
            job_id = self.call.place.scheduler.task_id(array.job_id, task[0])
            self.call.earlier |= {each: array.element(each, job_id) for each in task if each in numbers}

    def _array(self) -> JobHandle:
        """Return the array that was taken over, or submit what is left."""
        claim = self.claim
        known = claim.attempts[-1].handle if claim.adopted else None
        if known is not None:
            self._tell_of(known, len(numbers_in(claim.lease.note.elements)))
            return known
        array = self.call.settings
        numbers = numbers_in(claim.lease.note.elements) if claim.adopted else self.call.left
        note = replace(claim.lease.note, elements=ranges(numbers), keys_per_task=array.keys_per_task)
        self.claim = replace(claim, lease=replace(claim.lease, note=note))
        handle, _ = self._submit(lambda: self._array_spec(sorted(numbers), array))
        return handle

    def _array_spec(self, numbers: Sequence[int], array: Array) -> JobSpec:
        call, context = self.call, self.call.step.context
        files = call.resolved.payload_files()
        specs = {}
        for number in numbers:
            element, run_dir = call.elements[number], f"{self._run_dir}/{ELEMENTS}/{number}"
            told, partition = element.told(call.pipes_context), element.partition or call.partition
            session = session_of(context, RunDirectoryMessageReader(f"{run_dir}/{MESSAGES}"), run_dir, told)
            specs[number] = self._spec(
                element.resolved, session, partition, run_dir, files=files, env=element.env
            )
        return array_of(specs, keys_per_task=array.keys_per_task, max_parallel=array.max_parallel)

    def _element_ended(self, job: FollowedElement, ended: Ended, cancelled: str) -> None:
        """Report an element's results, or remember what is to be done about its end."""
        call = self.call
        outcome, figures = judge(ended), self._figures(job.handle, ended)
        if cancelled and not outcome.success:
            outcome = replace(outcome, message=f"{outcome.message} {cancelled}")
        number, stored = job.element.number, None
        if outcome.success and call.streams:
            self._handed_over.add(number)
        elif outcome.success:
            stored = partial(call.hand_over, number)
            call.collected.add(number)
        if outcome.success:
            figures |= self._brought(job.handle, ended)
        completed = CompletedJob(job.session, typed(figures), made=ended.made, stored=stored)
        call.reports.put(Report(call, job.element, completed, outcome.success))
        if outcome.success:
            return
        if self.claim.adopted and not job.alive:
            self._again.append(NextAttempt("earlier", 0.0, {}, f"It had ended before: {outcome.message}"))
            return
        asked = call.resolved.script.resources.sbatch_options()
        options = {**dict(asked), **self.claim.lease.note.changed}
        answer = self._answer(outcome, ended, options, job.output, figures)
        if isinstance(answer, NextAttempt):
            self._again.append(answer)
            return
        call.failures.append(ElementFailure(job.element, answer))
        if len(call.failures) <= _MOST_TOLD:
            told = f"{job.element.title}: {outcome.message} Run directory: {job.handle.run_dir}"
            call.step.context.log.warning(told)

    def _next(self) -> NextAttempt:
        """Return the one attempt that answers all ends of elements."""
        ends = Counter(each.why for each in self._again)
        why = "\n".join(f"{count} elements: {text}" for text, count in ends.most_common(5))
        changed = {name: value for each in self._again for name, value in each.changed.items()}
        delay = max(each.delay for each in self._again)
        return NextAttempt(self._again[0].kind, delay, changed, why)


class ElementAttempt(AttemptRun[ElementCall, CompletedJob | None]):
    """An attempt of one element as a job of its own; it returns nothing where its results were stored before."""

    def perform(self) -> CompletedJob | NextAttempt | None:
        """Run the job, if that was not done by an earlier try."""
        if self.call.was_collected(self.claim):
            return None
        return JobAttempt(self.call, self.claim).perform()
