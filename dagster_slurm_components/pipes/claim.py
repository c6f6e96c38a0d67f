"""Which attempt at a call this process makes: a new one, or the one that an earlier process left behind.

The decision is ``jobs.lease.decide``; here its questions are answered from Dagster's runs and from the host.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import dagster as dg

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.hosts.satellite.calls import LeaseRequest
from dagster_slurm_components.jobs.ending import end_attempt
from dagster_slurm_components.jobs.lease import (
    COLLECTED,
    ENDED,
    LEFT,
    REPORTING,
    Adopt,
    Attempt,
    EndFirst,
    Fresh,
    HeldError,
    Lease,
    Note,
    OutputPosition,
    Owner,
    decide,
)
from dagster_slurm_components.jobs.look import look_at
from dagster_slurm_components.jobs.model import JobHandle, JobIdentity, slug
from dagster_slurm_components.jobs.reconcile import Observation
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.pipes.context import range_keys
from dagster_slurm_components.pipes.guard import Guard
from dagster_slurm_components.pipes.step import Step, made_by, run_of
from dagster_slurm_components.spec.resolve import ResolvedScript

_STORED = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_OUTPUT,
}
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
        cancel: Set when its caller wants the job cancelled.
        handle: The newest job; none before the first submission.
        observation: What was last heard of it.
        guard: Whether this process still speaks for its run. The call's own thread sets it, as what follows.
        place: Where its jobs run; calls of its ``satellite`` wait for a lost host.
        activation: How their environment is activated.
    """

    step: Step
    resolved: ResolvedScript
    number: int
    extras: Mapping[str, Any]
    env: Mapping[str, str] = field(default_factory=dict)
    cancel: threading.Event = field(default_factory=threading.Event)
    handle: JobHandle | None = None
    observation: Observation = field(default_factory=Observation)
    guard: Guard = field(init=False)
    place: Target = field(init=False)
    activation: Activation = field(init=False)

    @property
    def identity(self) -> JobIdentity:
        """Which job its first attempt is."""
        return self.step.identity(self.number)

    @property
    def upstream(self) -> Mapping[str, str]:
        """Which run made each of the things that its job reads."""
        return self.step.upstream

    def upstream_now(self, before: Mapping[str, str]) -> Mapping[str, str]:
        """Return which run made those things that an earlier job of this call has read, as far as is known."""
        run = self.step.run
        return {} if run is None else made_by(self.step.instance, run, frozenset(before))

    @property
    def left(self) -> bytes:
        """What is written down for whoever reports the results, where that is not the step."""
        return b""

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
            "extras": {**self.extras, "partition_keys": range_keys(self.step.context)},
            "env": self.env,
        }
        return hashlib.sha256(json.dumps(raw, sort_keys=True, default=repr).encode()).hexdigest()


@dataclass(frozen=True)
class Claim:
    """An attempt that is this process's.

    Attributes:
        identity: Which job.
        note: What is kept for whoever takes it over.
        epoch: The epoch of its lease.
        adopted: Whether its job may exist already.
        shown: What a person has seen of its output.
    """

    identity: JobIdentity
    note: Note
    epoch: int = 1
    adopted: bool = False
    shown: OutputPosition = field(default_factory=OutputPosition)

    def request(self, call: JobCall) -> LeaseRequest:
        """Return what the host is told of who submits, and what."""
        epoch = self.epoch if self.adopted else None
        return LeaseRequest(call.digest, call.content, asdict(call.step.owner), asdict(self.note), epoch)

    def next(self, kind: str, changed: Mapping[str, str]) -> Claim:
        """Return the claim to the attempt that a retry policy answers an end with."""
        note = self.note
        retries = {**note.retries, kind: note.retries.get(kind, 0) + 1}
        note = replace(note, retries=retries, changed={**note.changed, **changed})
        return Claim(self.identity.next(), note)


class Claims:
    """Claims attempts at one call."""

    def __init__(self, call: JobCall) -> None:
        self._call = call
        self._step = call.step
        self._place = call.place
        self._identity = call.identity
        self._leases = call.place.leases

    def first(self) -> Claim:
        """Return the claim to the first attempt; the host says if it was made before."""
        profile = self._call.resolved.profile.name
        return Claim(self._identity, Note(upstream=self._call.upstream, profile=profile, step=self._step.key))

    def claim(self) -> Claim:
        """Return the attempt that is to be made, after the host was asked for those before it.

        Raises:
            Failure: Another run follows the job.
            NotEndedError: A job that has to end first does not.
            HostError: The host refuses.
        """
        folder = f"{self._place.workdir}/{self._identity.call_folder}"
        while True:
            attempts = self._leases.attempts(folder)
            try:
                decision = decide(attempts, unwanted=self._not_wanted, released=self._released)
            except HeldError as error:
                raise dg.Failure(str(error), allow_retries=False) from error
            match decision:
                case Fresh(number=number):
                    return replace(self.first(), identity=replace(self._identity, attempt=number))
                case EndFirst(attempt=attempt, why=why):
                    self._end(attempt, why)
                case Adopt(attempt=attempt):
                    claim = self._adopt(attempt)
                    if claim is not None:
                        return claim

    def _not_wanted(self, lease: Lease) -> str | None:
        """Return why a job is not the one that is to be run now."""
        if lease.digest != self._call.digest:
            return "it has other content"
        upstream = lease.note.upstream
        now = self._call.upstream_now(upstream)
        newer = [key for key, run_id in upstream.items() if now.get(key, run_id) != run_id]
        return f"{', '.join(newer)} was run anew since" if newer else None

    def _released(self, owner: Owner) -> bool:
        """Whether an owner has no say any more: of this run, of one that is over, or proven dead."""
        if owner.run_id == self._step.run_id:
            return True
        run = run_of(self._step.instance, owner.run_id)
        return run is None or run.is_finished or owner.known_dead()

    def _end(self, attempt: Attempt, why: str) -> None:
        log = self._step.context.log.warning
        log(f"The attempt in {attempt.run_dir} is not taken up: {why}. What is left of it ends first.")
        name = f"{slug(self._step.key)}-{attempt.ledger.token}"
        end_attempt(self._place, attempt, self._step.owner, name, tell=log, sleep=self._call.guard.pause)

    def _adopt(self, attempt: Attempt) -> Claim | None:
        """Take a job over; return nothing where its work is over: then the next look decides anew."""
        step, lease = self._step, attempt.lease
        ended_by = lease.owner.run_id if lease.owner and lease.state == ENDED else None
        if ended_by and results_stored(step.instance, ended_by, step.key, lease.finished or 0.0):
            self._leases.change(attempt.run_dir, lease.epoch, COLLECTED)
            return None
        taken = self._leases.take(attempt, step.owner)
        if taken is None or (taken.state != ENDED and self._ended_badly(attempt, taken.epoch)):
            return None
        identity = replace(self._identity, attempt=attempt.number)
        return Claim(identity, taken.note, taken.epoch, True, taken.shown)

    def _ended_badly(self, attempt: Attempt, epoch: int) -> bool:
        """Whether a job that nobody followed has ended meanwhile, without success."""
        (seen,) = look_at(self._place, [attempt])
        if seen is None or not seen.ended_badly:
            return False
        word = seen.observation.state
        self._step.context.log.warning(
            f"Job {seen.handle.job_id} of an earlier try ended meanwhile: {word}. "
            f"Its output is in {attempt.run_dir}."
        )
        # Of a job that was left the sensor has yet to report this.
        state = REPORTING if attempt.lease.state == LEFT else ENDED
        self._leases.change(attempt.run_dir, epoch, state, outcome=word)
        return True


def results_stored(instance: dg.DagsterInstance, run_id: str, step: str, since: float) -> bool:
    """Return whether Dagster has stored results of a run's step since a moment, in seconds since the epoch."""
    # The newest first: mostly what is asked for was stored a moment ago, or is the last thing that its run did. Other
    # steps of a large run may have stored hundreds of events since.
    cursor, limit = None, _PAGE
    while True:
        page = instance.get_records_for_run(
            run_id, of_type=_STORED, limit=limit, ascending=False, cursor=cursor
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
