"""Asks queue and accounting for all watched jobs at once: one query at a time, in a thread of its own.

So a hanging ``squeue`` never delays a log line, and a hanging ``sacct`` delays the queue for a moment only. Whoever
looks may find an answer that another process asked for, on the host (``satellite.queries``); it counts as of the moment
when it was asked. How often all together may ask Slurm is kept there as well: where no query may be made now, what was
said before is looked at again a little later.
"""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal, NamedTuple

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.events import LAG, Watch
from dagster_slurm_components.jobs.reconcile import QueueAnswer
from dagster_slurm_components.jobs.schedulers import AccountingRows, QueueRows, Scheduler
from dagster_slurm_components.slurm.accounting import MAX_IDS
from dagster_slurm_components.slurm.states import Phase, state

_AGAIN = (2.0, 60.0)
"""Seconds until the accounting is asked again about a job that it did not know, at first and at most."""
_PER_JOB = 0.05
"""Seconds that the figures of ended jobs wait for those of others, for each job that is followed."""
_PAUSE = 5.0
"""Seconds between two queries of the queue, whatever happens: jobs that end together share one."""
_BURST = 7.0
"""Seconds for which a submission puts off the question about the ones before it: one answer is to tell of all."""
_NEVER = float("-inf")

Query = Literal["queue", "accounting"]


def next_query(*, queue_due: bool, accounting_due: bool, last: Query) -> Query | None:
    """Return what is asked now."""
    if queue_due and accounting_due:
        # Ended jobs whose accounting stays out must not keep the queue from being asked.
        return "accounting" if last == "queue" else "queue"
    return "queue" if queue_due else "accounting" if accounting_due else None


def not_before(asked: Sequence[float]) -> float:
    """Return when a submission may call for another query, after the last two: one soon, and another a little later.

    A thousand jobs that are submitted one after the other are one piece of news, not a thousand.
    """
    if not asked:
        return _NEVER
    return asked[-1] + 12.0 if len(asked) == 1 else asked[-2] + 120.0


@dataclass
class Demand:
    """An answer of the queue is wanted that tells of what happened from ``first`` to ``last``."""

    first: float = float("inf")
    last: float = _NEVER

    @property
    def met(self) -> bool:
        """Whether nothing is wanted."""
        return self.first > self.last

    def add(self, now: float) -> None:
        """Something happened now."""
        self.first, self.last = min(self.first, now), now

    def answer(self, taken: float) -> None:
        """The queue said how it was then; what happened later is wanted still."""
        self.first = float("inf") if taken >= self.last else max(self.first, taken)


class _Pending(NamedTuple):
    """A query whose answer is awaited."""

    query: Query
    watches: Sequence[Watch]
    began: float
    answer: Future[QueueRows | AccountingRows]


@dataclass(eq=False)
class Poller:
    """Decides when queue and accounting are asked, and hands out their answers as evidence."""

    scheduler: Scheduler
    satellite: Satellite

    def __post_init__(self) -> None:
        self._pending: _Pending | None = None
        self._slow: _Pending | None = None
        """A query of the accounting that hangs: it does not keep the queue from being asked."""
        self._last: Query = "queue"
        self._asked: deque[float] = deque(maxlen=2)
        """When this process's looks at the queue last made queries."""
        self._news, self._ends = Demand(), Demand()
        self._free = _NEVER
        """No other query is made before that: one was just made, or refused."""
        self._twice = False
        self._look = 0.0
        """When the queue's newest answer is looked at next, whoever asked for it."""
        self._heard = _NEVER
        """When the newest query of the queue was made, with an answer or without."""
        self._rows: object = None
        self.share = 1.0
        """This process's part of the file operations that the host should bear."""
        self._figures = _NEVER
        """When the accounting may next be asked for what is only nice to know."""

    def soon(self, now: float, *, urgent: bool = False) -> None:
        """Something happened of which only the queue can tell: ask it again; ``urgent`` when a job has ended."""
        self._twice = not urgent
        (self._ends if urgent else self._news).add(now)
        if self._look < now - self.scheduler.look:  # nobody followed a job for a while
            self._look = now + self.scheduler.look

    def due(self, watches: Sequence[Watch]) -> float:
        """Return the monotonic time of the next query or look for its answer."""
        if pending := self._pending or self._slow:
            return pending.began
        accounting = [self._accounting_due(watch) for watch in self._unexplained(watches)]
        return min([self._look, *(at for at, _ in self._demands()), *accounting])

    def _demands(self) -> tuple[tuple[float, Demand], tuple[float, Demand]]:
        """Return what the queue is to tell, and from when on Slurm is asked for that."""
        burst = max(self._news.first, min(self._news.last, self._news.first + _BURST))
        news = max(burst + self.scheduler.first_query, not_before(self._asked))
        return (max(news, self._free), self._news), (max(self._ends.first + LAG, self._free), self._ends)

    def _unexplained(self, watches: Sequence[Watch]) -> list[Watch]:
        """Return the jobs of which the accounting is to tell."""
        asks = self.scheduler.has_accounting and self._slow is None
        return [watch for watch in watches if asks and watch.wants_accounting]

    def _accounting_due(self, watch: Watch) -> float:
        return max(watch.accounting_due, self._figures if watch.explained else 0.0)

    def poll(self, watches: Sequence[Watch], now: float) -> None:
        """Begin the next query, if one is due and none is under way; hand out an answer that has come.

        Raises:
            HostUnreachableError: The host could not be asked.
        """
        pending = self._pending
        if pending and pending.query == "accounting" and now >= pending.began + _PAUSE:
            self._slow, self._pending = pending, None
        if self._pending is None:
            self._ask(watches, now)
        if self._pending is not None and self._pending.answer.done():
            pending, self._pending = self._pending, None
            self._deliver(pending, now)
        if self._slow is not None and self._slow.answer.done():
            pending, self._slow = self._slow, None
            self._deliver(pending, now)

    def _ask(self, watches: Sequence[Watch], now: float) -> None:
        unexplained = [watch for watch in self._unexplained(watches) if self._accounting_due(watch) <= now]
        live = [watch for watch in watches if not watch.observation.terminal]
        query = next_query(
            queue_due=bool(live) and now >= min(self._look, *(at for at, _ in self._demands())),
            accounting_due=bool(unexplained),
            last=self._last,
        )
        if query is None:
            return
        self._last = query
        if query == "accounting":
            self._figures = now + _AGAIN[0] + _PER_JOB * len(watches)
            # sacct takes so many ids at a time: those whose end is not known, and that waited longest, come first.
            unexplained.sort(key=attrgetter("explained", "accounting_due"))
            self._pending = _Pending(query, unexplained[:MAX_IDS], now, Future())
        else:
            self._pending = _Pending(query, live, now, Future())
        try:
            threading.Thread(target=self._answer, args=(self._pending,), daemon=True).start()
        except RuntimeError:
            # The interpreter is ending, and starts no more threads: jobs are followed until they are cancelled or left.
            self._answer(self._pending)

    def _answer(self, pending: _Pending) -> None:
        try:
            asking = self._queue if pending.query == "queue" else self._accounting
            pending.answer.set_result(asking(pending.watches, pending.began))
        except Exception as error:  # noqa: BLE001 - raised in the watcher's thread, where the answer is taken
            pending.answer.set_exception(error)

    def _queue(self, watches: Sequence[Watch], now: float) -> QueueRows:
        ages = [now - demand.last for at, demand in self._demands() if at <= now]
        age = min([self.scheduler.max_age, *ages])
        return self.scheduler.queue(self.satellite, [watch.handle for watch in watches], age)

    def _accounting(self, watches: Sequence[Watch], now: float) -> AccountingRows:
        # An answer will do that is younger than this process's last one about the job, or than the job's end.
        # Where elements share a job the youngest need counts.
        since = sorted((watch.accounting_since, watch.handle.job_id) for watch in watches)
        wanted = {job_id: now - at for at, job_id in since}
        spare = all(watch.explained for watch in watches)
        return self.scheduler.accounting(self.satellite, wanted, spare=spare)

    def _deliver(self, pending: _Pending, now: float) -> None:
        if pending.query == "queue":
            self._look = now + self.scheduler.look
        else:
            for watch in pending.watches:
                watch.accounting_due = now + self.scheduler.look
        try:
            answer = pending.answer.result()
        except SatelliteError:
            # No query could be made, or somebody else's hangs: no answer, and no reason to end anybody's watching.
            self._free = now + self.scheduler.look
            return
        if isinstance(answer, QueueRows):
            self._deliver_queue(answer, pending.watches, pending.began, now)
        else:
            self._deliver_accounting(answer, pending.watches, pending.began, now)

    def _deliver_queue(self, answer: QueueRows, watches: Sequence[Watch], began: float, now: float) -> None:
        taken = began - answer.age
        self.share = answer.share
        self._heard = max(self._heard, taken)
        due = [demand for at, demand in self._demands() if at <= began]
        for _, demand in self._demands():
            demand.answer(taken)
        if answer.fresh:
            self._asked.append(began)
            self._free = began + _PAUSE
        elif not all(demand.met for demand in due):
            self._free = now + self.scheduler.look  # the budget allows none now
        for watch in watches:
            known = answer.rows is self._rows and watch.evidence.queue is not None
            # A failed query is no observation.
            if answer.rows is not None and not known:
                row = answer.rows.get(watch.handle.job_id)
                # One from before the job was there can't know it.
                if row is not None or taken >= watch.began:
                    watch.evidence = replace(watch.evidence, queue=QueueAnswer(row, taken))
            if not self.scheduler.has_accounting:
                watch.accounting_asked = self._heard  # nobody else could say more
            watch.slurm_was_asked(self._heard)
        self._rows = answer.rows
        rows = [answer.rows.get(watch.handle.job_id) for watch in watches] if answer.rows else []
        unsaid = any(row and not row.reason and state(row.state).phase is Phase.WAITING for row in rows)
        if self._news.met and self._twice and unsaid:
            # Slurm will have looked at a job that was submitted just now, and say why it waits.
            self._news.add(now)
            self._twice = False

    def _deliver_accounting(
        self, answer: AccountingRows, watches: Sequence[Watch], began: float, now: float
    ) -> None:
        for watch in watches:
            age, row = answer.rows.get(watch.handle.job_id, (float("inf"), None))
            asked = began - min(age, answer.failed_age)
            if asked >= watch.accounting_since:
                watch.accounting_since = began
                watch.accounting_due = now + min(_AGAIN[1], _AGAIN[0] * 2**watch.accounting_tries)
                watch.accounting_tries += 1
                watch.accounting_asked = asked
                if row is not None:  # an older one may tell of an earlier start
                    watch.evidence = replace(watch.evidence, accounting=row)
            watch.slurm_was_asked(self._heard)
