"""A call of a step: what it asks for, and how Dagster's runs and event log answer what ``jobs.takeover`` asks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dagster as dg

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.environments.provide import activation_for
from dagster_slurm_components.jobs.lease import HeldError, Lease, Note
from dagster_slurm_components.jobs.model import JobHandle, JobIdentity
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.jobs.reconcile import Observation
from dagster_slurm_components.jobs.takeover import Claim, take_over
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.jobs.timeline import Span
from dagster_slurm_components.pipes.context import Partition, open_session, partition_of
from dagster_slurm_components.pipes.guard import Guard
from dagster_slurm_components.pipes.inputs import StepInputs
from dagster_slurm_components.pipes.step import Step, made_by, run_of
from dagster_slurm_components.spec.resolve import ResolvedScript

RESULTS = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_OUTPUT,
}
"""What Dagster stores of a step's results."""
LAST_RESULT: ContextVar[float | None] = ContextVar("dagster_slurm_last_result", default=None)
"""When Dagster stored a result of the step last; known where a step is a thread of the run's own process."""
SPANS: ContextVar[list[Span] | None] = ContextVar("dagster_slurm_spans", default=None)
"""The jobs of the run that were followed to their ends; known where a step is a thread of the run's own process."""
_PAGE = 8
"""Events that are read at first; mostly what is looked for is among the newest. Each further page is larger."""
_SLACK = 1.0
"""Seconds by which the clocks of two of Dagster's machines may differ."""


@dataclass
class JobCall:
    """What a step asks for by one call, and what all that work on it share.

    Attributes:
        step: The step.
        resolved: The script in its profile.
        number: The number of the call in the step.
        extras: What the payload receives as Pipes extras.
        env: Variables for this call alone.
        label: Begins each line that its job writes, where several write to one step.
        cancel: Set when its caller wants the job cancelled.
        handle: The newest job; none before the first submission.
        observation: What was last heard of it.
        guard: Whether this process still speaks for its run. The call's own thread sets it, as what follows.
        place: Where its jobs run; calls of its ``satellite`` wait for a lost host.
        activation: How their environment is activated.
        inputs: What they read.
    """

    step: Step
    resolved: ResolvedScript
    number: int
    extras: Mapping[str, Any]
    env: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    cancel: threading.Event = field(default_factory=threading.Event)
    handle: JobHandle | None = None
    observation: Observation = field(default_factory=Observation)
    guard: Guard = field(init=False)
    place: Target = field(init=False)
    activation: Activation = field(init=False)
    inputs: StepInputs = field(init=False)

    @property
    def identity(self) -> JobIdentity:
        """Which job its first attempt is."""
        return self.step.identity(self.number)

    @property
    def may_have_been_tried(self) -> bool:
        """Whether there may be attempts at it already."""
        return self.step.may_have_been_tried

    @property
    def upstream(self) -> Mapping[str, str]:
        """Which run made each of the things that its job reads."""
        return self.step.upstream

    def upstream_now(self, before: Mapping[str, str]) -> Mapping[str, str]:
        """Return which run made those things that an earlier job of this call has read, as far as is known."""
        run = self.step.run
        return {} if run is None else made_by(self.step.instance, run, frozenset(before))

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be done once its results are stored."""
        return True

    @property
    def left_record(self) -> bytes:
        """What is written down for whoever reports the results, where that is not the step."""
        return b""

    @property
    def partition(self) -> Partition:
        """The partition that the job is for, or the range of them."""
        return partition_of(self.step.context)

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys of a range of partitions, or of the elements of an array, that the job is for."""
        return self.partition.keys

    def session(self, reader: dg.PipesMessageReader, run_dir: str) -> dg.PipesSession:
        """Open a Pipes session for a job in a run directory."""
        return open_session(self.step.context, reader, run_dir, self.extras)

    def equip(self, *, sure: bool = False) -> None:
        """Have the software of its jobs on their host; their inputs are brought when they are asked for.

        If ``sure``, all of it is looked for, and nothing believed that was there lately. Raises an
        EnvironmentFailedError or a HostError.
        """
        context, place, tell = self.step.context, self.place, self.step.context.log.info
        self.activation = activation_for(
            self.resolved, place.satellite, place.workdir, checked=sure, tell=tell
        )
        self.inputs = StepInputs(context, self.resolved, place, self.guard, sure=sure)

    @property
    def input_digests(self) -> Sequence[Mapping[str, object]]:
        """What the inputs of its jobs consist of; they are on the host then."""
        return [self.inputs.of(self.resolved, self.partition).digest] if self.resolved.script.inputs else []

    @cached_property
    def content(self) -> str:
        """Hash of the payload and its files."""
        return self.resolved.content_digest()

    @cached_property
    def digest(self) -> str:
        """Hash of all that its job is made of; secrets count as they are written, not as they are."""
        activation = self.activation
        raw = {
            "content": self.content,
            "profile": self.resolved.profile.name,
            "resources": self.resolved.script.resources.model_dump(mode="json"),
            "environment": [activation.arguments().hex(), activation.wrapper, activation.files],
            "extras": {**self.extras, "partition_keys": self.keys},
            "env": self.env,
        }
        if inputs := self.input_digests:
            raw["inputs"] = inputs
        if outputs := self.resolved.script.outputs:  # a job that lives may be of a version without them
            raw["outputs"] = {name: output.model_dump() for name, output in outputs.items()}
        if stage := self.resolved.script.stage:
            raw["stage"] = stage
        return hashlib.sha256(json.dumps(raw, sort_keys=True, default=repr).encode()).hexdigest()

    def unwanted(self, lease: Lease) -> str | None:
        """Return why a job is not the one that is to be run now."""
        if lease.digest != self.digest:
            return "it has other content"
        upstream = lease.note.upstream
        now = self.upstream_now(upstream)
        newer = [key for key, run_id in upstream.items() if now.get(key, run_id) != run_id]
        return f"{', '.join(newer)} was run anew since" if newer else None

    def released(self, owner: Owner) -> bool:
        """Whether an owner has no say any more: of this run, of one that is over, or proven dead."""
        if owner.run_id == self.step.run_id:
            return True
        run = run_of(self.step.instance, owner.run_id)
        return run is None or run.is_finished or owner.known_dead()

    def stored(self, lease: Lease) -> bool:
        """Whether Dagster has stored the results of a job that has ended."""
        run_id, since = lease.owner.run_id if lease.owner else "", lease.finished or 0.0
        return bool(run_id) and results_stored(self.step.instance, run_id, self.step.key, since)

    def first_claim(self) -> Claim:
        """Return the claim to the first attempt; the host says if it was made before."""
        step = self.step
        note = Note(upstream=self.upstream, profile=self.resolved.profile.name, step=step.key)
        return Claim(self.identity, step.owner, Lease(1, note=note))


def claim_after_others(call: JobCall, first: Claim) -> Claim:
    """Return the claim that ``take_over`` gives; a job that another run follows is a failure, and not retried."""
    try:
        return take_over(call.place, first, call, tell=call.step.context.log.warning, sleep=call.guard.pause)
    except HeldError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def results_stored(instance: dg.DagsterInstance, run_id: str, step: str, since: float) -> bool:
    """Return whether Dagster has stored results of a run's step since a moment, in seconds since the epoch."""
    # The newest first: mostly what is asked for was stored a moment ago, or is the last thing that its run did. Other
    # steps of a large run may have stored hundreds of events since.
    cursor, limit = None, _PAGE
    while True:
        page = instance.get_records_for_run(
            run_id, of_type=RESULTS, limit=limit, ascending=False, cursor=cursor
        )
        limit *= 4
        for record in page.records:
            event = record.event_log_entry.dagster_event
            if record.timestamp < since - _SLACK:
                return False
            if event is not None and event.step_key == step:
                return True
        if not page.has_more:
            return False
        cursor = page.cursor
