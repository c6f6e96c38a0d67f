"""What is known of a job now: three sources, one pure function.

The sources are the job's own ``status`` file, the queue and the accounting. Each may be late, silent or out of
date; none is believed alone where another could contradict it:

* A query that failed is no observation: it never changes a state.
* A job that is absent from the queue has vanished, not finished: only the status file, the accounting, or a
  bounded wait ends it.
* A terminal state is final.
* An exit code that the job wrote itself is final, unless a signal came before it: then Slurm may have been
  stopping or requeueing the job, and its word is awaited for a bounded time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.slurm.accounting import AccountingRow
from dagster_slurm_components.slurm.queue import QueueRow
from dagster_slurm_components.slurm.states import Phase, state

SUBMITTED = "SUBMITTED"
"""The state before anything else is known."""
LOST = "LOST"
"""The state of a job that left no trace: not in the queue, not in the accounting, no exit code."""

_STOPPING = frozenset({"TERM", "INT", "HUP"})
"""Signals that mean somebody is stopping the job; USR1 and USR2 only ask it to write a checkpoint."""
_FIRST_SIGNAL_CODE = 129

Row = TypeVar("Row")


@dataclass(frozen=True)
class Answer(Generic[Row]):
    """A row, or that the source does not know the job; ``taken`` in seconds of this process's monotonic clock."""

    row: Row | None
    taken: float


@dataclass(frozen=True)
class Evidence:
    """The newest answer of each source, and the newest block of the status file; none where it never answered."""

    status: StatusRecord | None = None
    queue: Answer[QueueRow] | None = None
    accounting: Answer[AccountingRow] | None = None


@dataclass(frozen=True)
class Patience:
    """How long each kind of silence is waited out, in seconds.

    Attributes:
        settle: For the status file of an ended job to become visible (shared file systems cache attributes).
        explanation: For the accounting to say why a job that was stopped or killed ended.
        absence: For a job that Slurm may start again (preempted, a failed node) to come back.
        trace: For a job that is in no queue and wrote no exit code to show in the accounting, which may lag by ten
            minutes where slurmdbd is busy.
    """

    settle: float = 15.0
    explanation: float = 30.0
    absence: float = 300.0
    trace: float = 900.0


@dataclass(frozen=True)
class Observation:
    """What is known of a job.

    Attributes:
        state: Slurm's word (``PENDING``), or ``SUBMITTED`` or ``LOST``.
        phase: Where in its life the job is.
        source: Who said so: ``submit``, ``status``, ``queue``, ``accounting`` or ``silence``.
        reason: Slurm's reason, while it waits.
        starts_at: The expected start (seconds since the epoch), while it waits.
        restarts: How often Slurm started it anew.
        exit_code: The payload's exit code, when known.
        absent_since: Monotonic time of the first queue answer without the job.
        ended_since: Monotonic time at which its end was first seen.
    """

    state: str = SUBMITTED
    phase: Phase = Phase.WAITING
    source: str = "submit"
    reason: str | None = None
    starts_at: float | None = None
    restarts: int = 0
    exit_code: int | None = None
    absent_since: float | None = None
    ended_since: float | None = None

    @property
    def terminal(self) -> bool:
        """Whether the job has ended for good."""
        return self.phase is Phase.TERMINAL

    @property
    def wants_accounting(self) -> bool:
        """Whether only the accounting can say how it goes on."""
        return not self.terminal and (self.absent_since is not None or self.ended_since is not None)


def reconcile(previous: Observation, evidence: Evidence, now: float, patience: Patience) -> Observation:
    """Return what is known of a job after hearing its sources; ``now`` is this process's monotonic clock."""
    if previous.terminal:
        return previous
    queue_row = evidence.queue.row if evidence.queue else None
    restarts = max(
        previous.restarts,
        evidence.status.restart if evidence.status else 0,
        (queue_row.restarts or 0) if queue_row else 0,
    )
    known = replace(previous, restarts=restarts)
    if restarts > previous.restarts:
        known = replace(known, ended_since=None, absent_since=None, exit_code=None)
    status = evidence.status if evidence.status and evidence.status.restart == restarts else None
    if status and status.exit_code is not None:
        return _ended_by_itself(known, status, evidence, now, patience)
    if evidence.queue is None:
        return _running(known, "status") if status else known
    if queue_row is None:
        return _absent(known, evidence.queue.taken, evidence, now, patience)
    return _queued(replace(known, absent_since=None), queue_row, status, now, patience)


def _ended_by_itself(
    known: Observation, status: StatusRecord, evidence: Evidence, now: float, patience: Patience
) -> Observation:
    """The job wrote its exit code."""
    code = status.exit_code or 0
    known = replace(known, exit_code=code, ended_since=_first(known.ended_since, now), reason=None)
    stopped = bool(_STOPPING.intersection(status.signals))
    if not stopped and code < _FIRST_SIGNAL_CODE:
        return _terminal(known, "COMPLETED" if code == 0 else "FAILED", "status")
    word = _final_word(known, evidence, now, patience)
    if word:
        return _terminal(known, "FAILED" if word[0] == "COMPLETED" and code else word[0], word[1])
    if now - _first(known.ended_since, now) < patience.explanation:
        return replace(known, state="COMPLETING", phase=Phase.ENDING, source="status")
    alone = "COMPLETED" if code == 0 else "CANCELLED" if stopped else "FAILED"
    return _terminal(known, alone, "status")


def _absent(
    known: Observation, taken: float, evidence: Evidence, now: float, patience: Patience
) -> Observation:
    """The queue answered and does not know the job, and the job wrote no exit code."""
    known = replace(known, absent_since=_first(known.absent_since, taken))
    word = _final_word(known, evidence, now, patience)
    if word and now - _first(known.absent_since, now) >= _settling(word[0], known, patience):
        return _terminal(known, *word)
    if now - _first(known.absent_since, now) >= patience.trace:
        return _terminal(known, LOST, "silence")
    return replace(known, phase=Phase.ENDING if known.phase is not Phase.WAITING else known.phase)


def _queued(
    known: Observation, row: QueueRow, status: StatusRecord | None, now: float, patience: Patience
) -> Observation:
    """The queue knows the job."""
    said = state(row.state)
    if said.phase is Phase.TERMINAL:
        known = replace(known, ended_since=_first(known.ended_since, now), phase=Phase.ENDING)
        patient = patience.absence if said.retryable else _settling(said.name, known, patience)
        if now - _first(known.ended_since, now) < patient:
            return known
        return _terminal(known, said.name, "queue")
    known = replace(known, ended_since=None)
    if said.phase is Phase.WAITING and status:
        return _running(known, "status")  # the queue's answer is older than the job's own word
    waiting = said.phase is Phase.WAITING
    return replace(
        known,
        state=said.name,
        phase=said.phase,
        source="queue",
        reason=row.reason if waiting else None,
        starts_at=row.start if waiting else None,
    )


def _final_word(
    known: Observation, evidence: Evidence, now: float, patience: Patience
) -> tuple[str, str] | None:
    """Return how Slurm says the job ended, and which source said it, once it can be believed."""
    for source, answer in (("queue", evidence.queue), ("accounting", evidence.accounting)):
        row = answer.row if answer else None
        if row is None:
            continue
        said = state(row.state)
        if said.phase is not Phase.TERMINAL:
            continue  # an old answer, or accounting that lags behind
        since = known.absent_since if known.absent_since is not None else known.ended_since
        if said.retryable and now - _first(since, now) < patience.absence:
            continue  # Slurm may start the job again; believed only when it stays away
        return said.name, source
    return None


def _settling(word: str, known: Observation, patience: Patience) -> float:
    """Seconds to wait for the status file: only a job that ran to its own end has an exit code to show."""
    ran = known.phase is not Phase.WAITING
    return patience.settle if word in ("COMPLETED", "FAILED") and ran else 0.0


def _running(known: Observation, source: str) -> Observation:
    return replace(
        known,
        state="RUNNING",
        phase=Phase.RUNNING,
        source=source,
        reason=None,
        starts_at=None,
        absent_since=None,
    )


def _terminal(known: Observation, word: str, source: str) -> Observation:
    return replace(known, state=word, phase=Phase.TERMINAL, source=source, reason=None, starts_at=None)


def _first(earlier: float | None, now: float) -> float:
    return now if earlier is None else earlier
