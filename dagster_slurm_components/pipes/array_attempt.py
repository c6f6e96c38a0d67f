"""One attempt at an array: submits what is left of it, or takes up the array there is, and hears all elements end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dagster_slurm_components.jobs.bundle import array_of
from dagster_slurm_components.jobs.events import MESSAGES, Ended
from dagster_slurm_components.jobs.lease import SUCCESS, ArrayPosition
from dagster_slurm_components.jobs.model import ELEMENTS, JobHandle, JobSpec
from dagster_slurm_components.jobs.outcome import judge
from dagster_slurm_components.jobs.retry import NextAttempt, next_attempt
from dagster_slurm_components.pipes.array_call import ArrayCall, ElementFailure, Report
from dagster_slurm_components.pipes.array_listen import ArrayListener, FollowedElement
from dagster_slurm_components.pipes.attempt import AttemptRun
from dagster_slurm_components.pipes.context import at_partition, session_of
from dagster_slurm_components.pipes.failure import failure
from dagster_slurm_components.pipes.follow import Follower
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.pipes.results import CompletedJob, typed
from dagster_slurm_components.slurm.arrays import numbers_in, ranges
from dagster_slurm_components.spec.array import Array

_WAIT = 0.05


@dataclass
class ArrayAttempt(AttemptRun[ArrayCall, Sequence[ElementFailure]]):
    """An attempt of an array."""

    _again: list[NextAttempt] = field(default_factory=list)
    _handed_over: set[int] = field(default_factory=set)

    def _run(self) -> Sequence[ElementFailure] | NextAttempt:
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
        self._close(SUCCESS if done else "FAILED", listener.shown)
        if done:
            self._collect()
        return self._next() if self._again else call.failures

    def _recall(self) -> None:
        """Learn from earlier attempts what Dagster has already."""
        call, claim = self.call, self.claim
        for attempt in claim.attempts:
            taken_over = claim.adopted and attempt is claim.attempts[-1]
            if not (taken_over or call.goes_on_from(attempt.lease)):
                continue
            shown = attempt.lease.shown
            if isinstance(shown, ArrayPosition):
                call.collected |= numbers_in(shown.collected)
                for check, numbers in shown.failed_checks.items():
                    call.failed_checks.setdefault(check, set()).update(numbers_in(numbers))
            if taken_over and attempt.lease.owner is not None:
                call.collected |= call.stored_by(attempt.lease.owner.run_id)

    def _array(self) -> JobHandle:
        """Return the array that was taken over, or submit what is left."""
        claim = self.claim
        known = claim.attempts[-1].handle if claim.adopted else None
        if known is not None:
            self._tell_of(known, len(numbers_in(claim.lease.note.elements)))
            return known
        array = self.call.resolved.script.array or Array()
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
            told = at_partition(call.pipes_context, element.partition)
            session = session_of(context, RunDirectoryMessageReader(f"{run_dir}/{MESSAGES}"), run_dir, told)
            specs[number] = self._spec(element.resolved, session, element.partition, run_dir, files)
        return array_of(specs, keys_per_task=array.keys_per_task, max_parallel=array.max_parallel)

    def _element_ended(self, job: FollowedElement, ended: Ended) -> None:
        """Report an element's results, or remember what is to be done about its end."""
        call, context = self.call, self.call.step.context
        stderr = job.output.stderr_tail
        outcome, figures = judge(ended), self._figures(job.handle, ended)
        completed = CompletedJob(job.session, typed(figures))
        if outcome.success:
            self._handed_over.add(job.element.number)
            call.reports.put(Report(call, job.element, completed.get_results(), success=True))
            return
        call.reports.put(Report(call, job.element, completed.check_results, success=False))
        if self.claim.adopted and not job.alive:
            self._again.append(NextAttempt("earlier", 0.0, {}, f"It had ended before: {outcome.message}"))
            return
        script, note = call.resolved.script, self.claim.lease.note
        options = {**dict(script.resources.sbatch_options()), **note.changed}
        again = next_attempt(script.retry, outcome, ended, options=options, retries=note.retries)
        if again is not None:
            self._again.append(again)
            return
        why = failure(
            outcome,
            call.resolved,
            exception=job.reader.exception,
            stderr=stderr,
            figures=figures,
            context=context,
        )
        call.failures.append(ElementFailure(job.element, why))
        context.log.warning(
            f"Partition {job.element.name}: {outcome.message} Run directory: {job.handle.run_dir}"
        )

    def _next(self) -> NextAttempt:
        """Return the one attempt that answers all ends of elements."""
        ends = Counter(each.why for each in self._again)
        why = "\n".join(f"{count} of the partitions: {text}" for text, count in ends.most_common(5))
        changed = {name: value for each in self._again for name, value in each.changed.items()}
        delay = max(each.delay for each in self._again)
        return NextAttempt(self._again[0].kind, delay, changed, why)
