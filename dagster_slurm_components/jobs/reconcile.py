"""What is known of a job now: its sources, one pure function.

The sources are the job's own ``status`` file, the queue, the accounting, and what Slurm's daemon wrote at the end of
the job's stderr. Each may be late, silent or out of date; none is believed alone where another could contradict it:

* A query that failed is no observation: it never changes a state.
* A job that is absent from the queue has vanished, not finished: only the status file, the accounting, or a
  bounded wait ends it.
* A question that could not be asked, as the budget that all share was used up, is no silence either: it is waited until
  it was asked.
* The daemon's words are weaker than Slurm's answer, and stronger than silence.
* A terminal state is final.
* An exit code that the job wrote itself is final, unless a signal came before it: then Slurm may have been
  stopping or requeueing the job, and its word is awaited for a bounded time.
"""

from dataclasses import dataclass, replace

from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.slurm.accounting import AccountingRow
from dagster_slurm_components.slurm.outcome import cause
from dagster_slurm_components.slurm.queue import QueueRow
from dagster_slurm_components.slurm.states import Phase, state

SUBMITTED = "SUBMITTED"
"""The state before anything else is known."""
LOST = "LOST"
"""The state of a job that left no trace: not in the queue, not in the accounting, no exit code."""

_STOPPING = frozenset({"TERM", "INT", "HUP"})
"""Signals that mean somebody is stopping the job; USR1 and USR2 only ask it to write a checkpoint."""
_FIRST_SIGNAL_CODE = 129


@dataclass(frozen=True)
class QueueAnswer:
    """A row, or that the queue does not know the job.

    It was so at the moment ``taken`` of this process's monotonic clock, whoever asked then.
    """

    row: QueueRow | None
    taken: float


@dataclass(frozen=True)
class Evidence:
    """The newest answer of each source, and the newest block of the status file; none where it never answered.

    Attributes:
        words: The state that Slurm's daemon named in the job's stderr as the cause of its end.
        asked: Monotonic time by which queue and accounting had both been asked about the job, answer or not.
    """

    status: StatusRecord | None = None
    queue: QueueAnswer | None = None
    accounting: AccountingRow | None = None
    words: str | None = None
    asked: float | None = None


@dataclass(frozen=True)
class Patience:
    """How long each kind of silence is waited out, in seconds.

    Attributes:
        settle: For the status file of an ended job to become visible (shared file systems cache attributes); for
            Slurm's answer where its daemon has said why the job ended; and for a job that Slurm may start again to come
            back into a queue that knows it no more.
        explanation: For Slurm to say why a job that was stopped or killed ended, once it was asked.
        absence: For a job that Slurm may start again (preempted, a failed node), while the queue gives no answer.
        trace: For a job that is in no queue and wrote no exit code to show in the accounting, which may lag by ten
            minutes where slurmdbd is busy; and for a question to be asked at all.
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
        source: Who said so: ``submit``, ``status``, ``queue``, ``accounting``, ``stderr`` or ``silence``.
        reason: Slurm's reason, while it waits.
        starts_at: The expected start (seconds since the epoch), while it waits.
        restarts: How often Slurm started it anew.
        requeue: Whether Slurm may start it anew, where that is known.
        exit_code: The payload's, when known.
        absent_since: Monotonic time of the first queue answer without the job.
        ended_since: Monotonic time at which its end was first seen.
    """

    state: str = SUBMITTED
    phase: Phase = Phase.WAITING
    source: str = "submit"
    reason: str | None = None
    starts_at: float | None = None
    restarts: int = 0
    requeue: bool | None = None
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
    return previous if previous.terminal else _Sources(evidence, now, patience).judge(previous)


@dataclass(frozen=True)
class _Sources:
    """What the sources say of a job at one moment, and how long each may be silent."""

    evidence: Evidence
    now: float
    patience: Patience

    def judge(self, job: Observation) -> Observation:
        status, queue = self.evidence.status, self.evidence.queue
        row = queue.row if queue else None
        restarts = max(job.restarts, status.restart if status else 0, (row.restarts or 0) if row else 0)
        if row is not None and row.requeue is not None:
            job = replace(job, requeue=row.requeue)
        if restarts > job.restarts:
            job = replace(job, restarts=restarts, ended_since=None, absent_since=None, exit_code=None)
        if status and status.restart != restarts:
            status = None  # of an earlier start
        if status and status.exit_code is not None:
            return self._ended_by_itself(job, status, status.exit_code)
        if queue is None:
            return _running(job) if status else job
        if row is None:
            return self._absent(job, queue.taken)
        return self._queued(replace(job, absent_since=None), row, started=status is not None)

    def _ended_by_itself(self, job: Observation, status: StatusRecord, code: int) -> Observation:
        """The job wrote its exit code."""
        since = _first(job.ended_since, self.now)
        job = replace(job, exit_code=code, ended_since=since, reason=None)
        stopped = bool(_STOPPING.intersection(status.signals))
        if not stopped and code < _FIRST_SIGNAL_CODE:
            return _terminal(job, "COMPLETED" if code == 0 else "FAILED", "status")
        said = self._said()
        if said:
            name, source = said
            if self.now - since >= self._doubt(name, source, job, since):
                name = cause("FAILED", self.evidence.words) if name == "COMPLETED" and code else name
                return _terminal(job, name, source)
            if source != "stderr":
                return replace(job, state=name, phase=Phase.ENDING, source=source)
        if not self._silent(since, self.patience.explanation):
            return replace(job, state="COMPLETING", phase=Phase.ENDING, source="status")
        if code == 0:
            return _terminal(job, "COMPLETED", "status")
        return _terminal(job, cause("CANCELLED" if stopped else "FAILED", self.evidence.words), "status")

    def _absent(self, job: Observation, taken: float) -> Observation:
        """The queue answered and does not know the job, and the job wrote no exit code."""
        since = _first(job.absent_since, taken)
        job = replace(job, absent_since=since)
        said = self._said()
        if said:
            name, source = said
            if self.now - since >= max(self._settling(name, job), self._doubt(name, source, job, since)):
                return _terminal(job, name, source)
            return replace(job, state=name, phase=Phase.ENDING, source=source)
        if self.now - since >= self.patience.trace:
            return _terminal(job, LOST, "silence")
        return job if job.phase is Phase.WAITING else replace(job, phase=Phase.ENDING)

    def _queued(self, job: Observation, row: QueueRow, *, started: bool) -> Observation:
        """The queue knows the job."""
        queued = state(row.state)
        if queued.phase is Phase.TERMINAL:
            since = _first(job.ended_since, self.now)
            name = cause(queued.name, self.evidence.words, self.evidence.accounting)
            settling = self._settling(name, job)
            job = replace(job, ended_since=since, state=name, phase=Phase.ENDING, source="queue")
            return job if self.now - since < settling else _terminal(job, name, "queue")
        job = replace(job, ended_since=None)
        waiting = queued.phase is Phase.WAITING
        if waiting and started:
            return _running(job)  # the queue's answer is older than the job's own word
        return replace(
            job,
            state=queued.name,
            phase=queued.phase,
            source="queue",
            reason=row.reason if waiting else None,
            starts_at=row.start if waiting else None,
        )

    def _said(self) -> tuple[str, str] | None:
        """Return in which state the job ended, and by which source: the strongest that says so."""
        queue, accounting, words = self.evidence.queue, self.evidence.accounting, self.evidence.words
        for source, row in (("queue", queue.row if queue else None), ("accounting", accounting)):
            # No row, an old answer, or accounting that lags behind, say nothing.
            if row is not None and state(row.state).phase is Phase.TERMINAL:
                return cause(state(row.state).name, words, accounting), source
        # That it was cancelled says less: for what reason, Slurm may know.
        return None if words in (None, "CANCELLED") else (words, "stderr")

    def _doubt(self, name: str, source: str, job: Observation, since: float) -> float:
        """Seconds for which it is not believed yet that the job ended so: another source could contradict it."""
        if source == "queue":
            # slurmctld requeues a job in one step: what it shows as ended without PENDING stays so.
            return 0.0
        if state(name).retryable and job.requeue is not False:
            queue = self.evidence.queue
            gone = queue is not None and queue.row is None and queue.taken >= since
            return self.patience.settle if gone else self.patience.absence
        return self.patience.settle if source == "stderr" else 0.0

    def _silent(self, since: float, seconds: float) -> bool:
        """Whether Slurm was asked since then, and has been silent for so long."""
        asked = seconds == 0 or (self.evidence.asked is not None and self.evidence.asked >= since)
        return self.now - since >= (seconds if asked else self.patience.trace)

    def _settling(self, final: str, job: Observation) -> float:
        """Seconds to wait for the status file: only a job that ran to its own end has an exit code to show."""
        ran = job.phase is not Phase.WAITING
        return self.patience.settle if final in ("COMPLETED", "FAILED") and ran else 0.0


def _running(job: Observation) -> Observation:
    """The job's own status file says that it runs."""
    job = replace(job, state="RUNNING", phase=Phase.RUNNING, source="status")
    return replace(job, reason=None, starts_at=None, absent_since=None)


def _terminal(job: Observation, final: str, source: str) -> Observation:
    return replace(job, state=final, phase=Phase.TERMINAL, source=source, reason=None, starts_at=None)


def _first(earlier: float | None, now: float) -> float:
    return now if earlier is None else earlier
