"""Listens to all elements of an array: the output of each, marked with its partition, and its end as a report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property

import dagster as dg

from dagster_slurm_components.jobs.events import (
    MESSAGES,
    Changed,
    Ended,
    Event,
    Output,
    OutputSkipped,
    Part,
    Watch,
)
from dagster_slurm_components.jobs.idle import IdleNews, IdleTimer
from dagster_slurm_components.jobs.lease import ArrayPosition
from dagster_slurm_components.jobs.live import uses
from dagster_slurm_components.jobs.model import JobHandle, tasks_of
from dagster_slurm_components.jobs.reconcile import Evidence, Observation
from dagster_slurm_components.jobs.takeover import Claim
from dagster_slurm_components.pipes.arrays.call import ArrayCall, Element
from dagster_slurm_components.pipes.context import selection, session_of
from dagster_slurm_components.pipes.listen import JobOutput, Listener
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.slurm.arrays import numbers_in, ranges
from dagster_slurm_components.slurm.states import Phase

_MOVING = 60.0
"""Seconds after the last start or end of an element for which further ones are expected at any moment."""
_AHEAD = 10
_TELL_EVERY = (30.0, 600.0)
"""Seconds between two lines about an array's progress: each is an event in Dagster's storage."""


class FollowedElement:
    """An element while it is followed; what there is to keep of its output is made when some comes: many may wait."""

    def __init__(self, element: Element, handle: JobHandle, call: ArrayCall) -> None:
        self.element = element
        self.handle = handle
        self._call = call
        self._label = f"[{element.name}] "
        self.observation = Observation()
        self.idle: IdleTimer | None = None
        self.alive = False
        """Whether it was seen to wait or run: then it has not ended before anybody followed it."""

    @cached_property
    def reader(self) -> RunDirectoryMessageReader:
        """What reads its messages."""
        chosen = selection(self._call.step.context)
        return RunDirectoryMessageReader(self.handle.file(MESSAGES), chosen, self._label)

    @cached_property
    def session(self) -> dg.PipesSession:
        """The Pipes session that takes its messages; the payload was told its context long ago."""
        return session_of(self._call.step.context, self.reader, self.handle.run_dir, self._call.pipes_context)

    @cached_property
    def output(self) -> JobOutput:
        """Its streams and messages."""
        _ = self.session  # opened: messages need one
        return JobOutput(self.handle, self.reader, label=self._label)


class ArrayListener(Listener):
    """Listens to an array; ``element_ended`` hears of each element that has ended, and why it was cancelled."""

    def __init__(
        self,
        call: ArrayCall,
        claim: Claim,
        handle: JobHandle,
        element_ended: Callable[[FollowedElement, Ended, str], None],
    ) -> None:
        super().__init__(call, handle)
        self._array = call
        self._element_ended = element_ended
        self._followed: dict[str, FollowedElement] = {}
        self._moved_at = -_MOVING
        self._counted = ""
        self._pause = _TELL_EVERY[0]
        self._tell_at = time.monotonic() + self._pause
        self.lease = self._watch(handle, epoch=claim.lease.epoch, part=Part.LEASE)
        for element, job in self._jobs(numbers_in(claim.lease.note.elements), claim.lease.note.keys_per_task):
            self._followed[job.run_dir] = followed = FollowedElement(element, job, call)
            followed.idle = IdleTimer(call.resolved.script.idle, self._watch(job, part=Part.ELEMENT))
        self._end_with_the_last()

    def _jobs(self, numbers: Iterable[int], keys_per_task: int) -> Iterable[tuple[Element, JobHandle]]:
        for task in tasks_of(numbers, keys_per_task):
            job_id = self._array.place.scheduler.task_id(self._handle.job_id, task[0])
            for number in task:
                if number in self._array.elements and number not in self._array.collected:
                    yield self._array.elements[number], self._handle.element(number, job_id)
        for number, handle in self._array.earlier.items():
            yield self._array.elements[number], handle

    @property
    def observation(self) -> Observation:
        """What is known of an element that waits, if none runs: what it waits for holds for the others, too."""
        seen = [each.observation for each in self._followed.values()]
        if any(each.phase is Phase.RUNNING for each in seen):
            return Observation(state="RUNNING", phase=Phase.RUNNING)
        return next((each for each in seen if each.phase is Phase.WAITING), Observation())

    @property
    def _title(self) -> str:
        return f"{super()._title} ({len(self._array.elements)} elements)"

    @property
    def shown(self) -> ArrayPosition:
        """What has been handed over by now."""
        # Copies: the step's own thread adds to them meanwhile.
        checks = {check: ranges(set(numbers)) for check, numbers in dict(self._array.failed_checks).items()}
        collected = set(self._array.collected) - self._array.unsettled
        return ArrayPosition(collected=ranges(collected), failed_checks=checks)

    def _hear(self, watch: Watch, event: Event) -> None:
        job = self._followed.get(watch.handle.run_dir)
        match event:
            case Output(data=data) if watch is self.lease:
                self._take_news(data)
            case Output() | OutputSkipped() if job is not None:
                job.output.take(event)
            case Changed(observation=observation, status=status) if job is not None:
                job.observation = observation
                self._note(status)
                self._moved_at = time.monotonic()
                job.alive |= not observation.terminal
            case Ended(observation=observation) if job is not None:
                job.observation = observation
                job.output.finish(self._log)
                self._note(event.evidence.status, event)
                del self._followed[job.handle.run_dir], self._watches[job.handle.run_dir]
                self._moved_at = time.monotonic()
                self._element_ended(job, event, self.cancelled.get(job.handle.job_id, ""))
                self._end_with_the_last()

    def _end_with_the_last(self) -> None:
        if not self._followed:
            state = "FAILED" if self._array.failures else "COMPLETED"
            self.ended = Ended(Observation(state=state, phase=Phase.TERMINAL), Evidence())

    def _take_news(self, data: bytes) -> None:
        """Look at the elements that have begun or ended; what is torn or of a task that is none is passed over."""
        for word in set(data.split()):
            watch = self._watches.get(self._handle.element(int(word), "").run_dir) if word.isdigit() else None
            if watch is not None:
                watch.look_soon()

    def _look_around(self) -> None:
        self._look_ahead()
        self._tell_progress()

    def idle_news(self) -> IdleNews | None:
        """What is to be told of the first element of which there is something to tell; of others it is soon after."""
        for job in self._followed.values():
            news = job.idle.check() if job.idle is not None else None
            if news is not None:
                return replace(news, text=f"{job.element.title}: {news.text}")
        return None

    def _look_ahead(self) -> None:
        """Slurm starts tasks in their order: where some move, those that wait next are looked at more often."""
        moves = time.monotonic() - self._moved_at < _MOVING
        waits = [key for key, job in self._followed.items() if job.observation.phase is Phase.WAITING]
        ahead = 2 * (len(self._followed) - len(waits)) + _AHEAD if moves else 0
        for place, key in enumerate(waits):
            self._watches[key].look_eagerly(place < ahead)

    def _tell_progress(self) -> None:
        if self._followed:
            self._tell(self._described(self.observation))
        if time.monotonic() < self._tell_at:
            return
        self._tell_at = time.monotonic() + self._pause
        self._pause = min(_TELL_EVERY[1], self._pause * 1.5)
        phases = Counter(each.observation.phase for each in self._followed.values())
        counts = {
            "wait": phases[Phase.WAITING],
            "run": phases[Phase.RUNNING] + phases[Phase.ENDING],
            "are done": len(self._array.collected),
            "failed": len(self._array.failures),
        }
        if not any(counts.values()):  # as the last have ended, and are not collected yet
            return
        counted = ", ".join(f"{count} {word}" for word, count in counts.items() if count) + "."
        running = [nodes for watch in self._watches.values() if (nodes := watch.meter.nodes)]
        if used := uses([node for nodes in running for node in nodes]):
            counted += f" Those that run ({len(running)} are known) use: {used}."
        if counted != self._counted:
            self._counted = counted
            self._log.info(
                f"Of the {len(self._array.elements)} elements of array {self._handle.job_id} {counted}"
            )
