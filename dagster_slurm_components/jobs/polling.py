"""Asks queue and accounting for all watched jobs at once: one query at a time, in a thread of its own.

So a hanging ``squeue`` never delays a log line. How often all together may ask, ``satellite.queries.spend`` keeps.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal, NamedTuple

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.events import Watch
from dagster_slurm_components.jobs.reconcile import QueueAnswer
from dagster_slurm_components.jobs.schedulers import Scheduler
from dagster_slurm_components.slurm.accounting import MAX_IDS, AccountingRow
from dagster_slurm_components.slurm.queue import QueueRow
from dagster_slurm_components.slurm.states import Phase

_ACCOUNTING_LAG = 1.0
"""Seconds after a job's end within which slurmdbd seldom knows of it (0.3 to 1.1 s on Slurm 22.05)."""
_ACCOUNTING_PAUSE = 2.0
_REFUSAL_PAUSE = 10.0
"""Seconds until a query is tried again that the host did not make: its budget refills by two a minute."""

Query = Literal["queue", "accounting"]


def next_query(*, queue_due: bool, accounting_due: bool, last: Query) -> Query | None:
    """Return what is asked now."""
    if queue_due and accounting_due:
        # Ended jobs whose accounting stays out must not keep the queue from being asked, where the budget allows one.
        return "accounting" if last == "queue" else "queue"
    return "queue" if queue_due else "accounting" if accounting_due else None


class _Pending(NamedTuple):
    """A query whose answer is awaited."""

    query: Query
    watches: Sequence[Watch]
    began: float
    answer: Future[Mapping[str, QueueRow | AccountingRow] | None]


@dataclass(eq=False)
class Poller:
    """Decides when queue and accounting are asked, and hands out their answers as evidence."""

    scheduler: Scheduler
    satellite: Satellite

    def __post_init__(self) -> None:
        self._pending: _Pending | None = None
        self._last: Query = "queue"
        self._count = 0
        """How often the queue was asked since something changed."""
        self._due: dict[Query, float] = {"queue": 0.0, "accounting": 0.0}

    def soon(self, now: float) -> None:
        """Something changed: ask again as after a submission."""
        self._count = 0
        self._due["queue"] = now + self.scheduler.first_query
        if self._due["accounting"] < now:
            self._due["accounting"] = now + _ACCOUNTING_LAG

    def due(self, watches: Sequence[Watch]) -> float:
        """Return the monotonic time of the next query or look for its answer."""
        if self._pending:
            return self._pending.began
        return min(self._due.values()) if self._unexplained(watches) else self._due["queue"]

    def _unexplained(self, watches: Sequence[Watch]) -> list[Watch]:
        """Return the jobs of which the accounting is to tell."""
        return [watch for watch in watches if self.scheduler.has_accounting and watch.wants_accounting]

    def poll(self, watches: Sequence[Watch], now: float) -> None:
        """Begin the next query, if one is due and none is under way; hand out an answer that has come.

        Raises:
            HostUnreachableError: The host could not be asked.
        """
        if self._pending is None:
            self._ask(watches, now)
        if self._pending is not None and self._pending.answer.done():
            pending, self._pending = self._pending, None
            self._deliver(pending, now)

    def _ask(self, watches: Sequence[Watch], now: float) -> None:
        # sacct takes so many ids at a time: those that were asked about longest ago come first.
        unexplained = sorted(self._unexplained(watches), key=attrgetter("accounting_asked_at"))[:MAX_IDS]
        live = [watch for watch in watches if not watch.observation.terminal]
        query = next_query(
            queue_due=bool(live) and now >= self._due["queue"],
            accounting_due=bool(unexplained) and now >= self._due["accounting"],
            last=self._last,
        )
        if query is None:
            return
        self._last = query
        if query == "accounting":
            for watch in unexplained:
                watch.accounting_asked_at = now
            self._due[query] = now + _ACCOUNTING_PAUSE
        else:
            waiting = any(watch.observation.phase is Phase.WAITING for watch in live)
            self._due[query] = now + self.scheduler.query_interval(self._count, waiting=waiting)
            self._count += 1
        self._pending = _Pending(query, live if query == "queue" else unexplained, now, Future())
        try:
            threading.Thread(target=self._answer, args=(self._pending,), daemon=True).start()
        except RuntimeError:
            # The interpreter is ending, and starts no more threads: jobs are followed until they are cancelled or left.
            self._answer(self._pending)

    def _answer(self, pending: _Pending) -> None:
        ask = self.scheduler.queue if pending.query == "queue" else self.scheduler.accounting
        try:
            pending.answer.set_result(ask(self.satellite, [watch.handle for watch in pending.watches]))
        except Exception as error:  # noqa: BLE001 - raised in the watcher's thread, where the answer is taken
            pending.answer.set_exception(error)

    def _deliver(self, pending: _Pending, now: float) -> None:
        try:
            rows = pending.answer.result()
        except SatelliteError:
            # The budget that all share is used up, or somebody else's query hangs: no answer, and no reason to end
            # anybody's watching.
            self._due = {query: max(due, now + _REFUSAL_PAUSE) for query, due in self._due.items()}
            return
        if rows is None:
            return  # a failed query is no observation
        for watch in pending.watches:
            row = rows.get(watch.handle.job_id)
            if isinstance(row, AccountingRow):
                watch.evidence = replace(watch.evidence, accounting=row)
            elif pending.query == "queue":
                watch.evidence = replace(watch.evidence, queue=QueueAnswer(row, pending.began))
