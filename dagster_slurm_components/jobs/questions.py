"""Asks queue and accounting for all watched jobs at once: one question at a time, within the budget.

The questions run in a thread of their own, so that a hanging ``squeue`` never delays a log line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

from dagster_slurm_components.errors import HostError, HostUnreachableError, SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.cadence import TokenBucket
from dagster_slurm_components.jobs.events import Watch
from dagster_slurm_components.jobs.reconcile import Answer
from dagster_slurm_components.jobs.schedulers import Scheduler
from dagster_slurm_components.slurm.accounting import MAX_IDS, AccountingRow
from dagster_slurm_components.slurm.queue import QueueRow
from dagster_slurm_components.slurm.states import Phase

_ACCOUNTING_LAG = 1.0
"""Seconds after a job's end within which slurmdbd seldom knows of it (0.3 to 1.1 s on Slurm 22.05)."""
_ACCOUNTING_AGAIN = 2.0
_BROKE = 2.0
"""Seconds until a question is tried again that the budget did not allow."""

Answered = TypeVar("Answered")


class Questions:
    """Asks queue and accounting for all jobs at once, one question at a time, within the budget."""

    def __init__(self, scheduler: Scheduler, satellite: Satellite, budget: TokenBucket) -> None:
        self._scheduler = scheduler
        self._satellite = satellite
        self._budget = budget
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dagster-slurm-query")
        self._queue: Future[Mapping[str, QueueRow] | None] | None = None
        self._accounting: Future[Mapping[str, AccountingRow] | None] | None = None
        self._books_last = False
        self._asked: list[Watch] = []
        self._asked_at = 0.0
        self._count = 0
        self._queue_at = 0.0
        self._accounting_at = 0.0

    def soon(self, now: float) -> None:
        """Something changed: ask again as after a submission."""
        self._count = 0
        self._queue_at = now + self._scheduler.first_query
        if self._accounting_at < now:
            self._accounting_at = now + _ACCOUNTING_LAG

    def close(self) -> None:
        """Let the thread go; questions in flight are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dagster-slurm-query")

    def due(self, watches: Sequence[Watch]) -> float:
        """Return the monotonic time of the next question or look for its answer."""
        if self._queue or self._accounting:
            return self._asked_at
        return min(self._accounting_at, self._queue_at) if self._wants_accounting(watches) else self._queue_at

    @staticmethod
    def _wants_accounting(watches: Sequence[Watch]) -> list[Watch]:
        return [
            watch
            for watch in watches
            if watch.observation.wants_accounting
            or (watch.closing_until is not None and watch.evidence.accounting is None)
        ]

    def ask(self, watches: Sequence[Watch], now: float) -> None:
        """Start the next question, if one is due and none is in flight.

        Where both are due and the budget allows one, they take turns: ended jobs whose accounting stays out must not
        keep the queue from being asked.
        """
        if self._queue or self._accounting:
            return
        ended = self._wants_accounting(watches) if self._scheduler.has_accounting else []
        live = [watch for watch in watches if not watch.observation.terminal]
        books, queue = bool(ended) and now >= self._accounting_at, bool(live) and now >= self._queue_at
        if not (books or queue):
            return
        if not self._afford(now):
            self._accounting_at = max(self._accounting_at, now + _BROKE)
            self._queue_at = max(self._queue_at, now + _BROKE)
        elif books and not (queue and self._books_last):
            self._ask_accounting(ended, now)
        else:
            self._ask_queue(live, now)

    def _ask_accounting(self, ended: Sequence[Watch], now: float) -> None:
        # sacct takes so many ids at a time: those that were asked about longest ago come first.
        asked = sorted(ended, key=lambda watch: watch.accounting_asked_at)[:MAX_IDS]
        for watch in asked:
            watch.accounting_asked_at = now
        self._accounting_at = now + _ACCOUNTING_AGAIN
        self._books_last = True
        self._asked, self._asked_at = asked, now
        handles = [watch.handle for watch in asked]
        self._accounting = self._begin(partial(self._scheduler.accounting, self._satellite, handles))

    def _ask_queue(self, live: list[Watch], now: float) -> None:
        waiting = any(watch.observation.phase is Phase.WAITING for watch in live)
        self._queue_at = now + self._scheduler.query_interval(self._count, waiting=waiting)
        self._count += 1
        self._books_last = False
        self._asked, self._asked_at = live, now
        handles = [watch.handle for watch in live]
        self._queue = self._begin(partial(self._scheduler.queue, self._satellite, handles))

    def _begin(self, question: Callable[[], Answered]) -> Future[Answered]:
        try:
            return self._pool.submit(question)
        except RuntimeError:
            # The interpreter is ending, and takes no more work: jobs are followed until they are cancelled or left.
            answered: Future[Answered] = Future()
            try:
                answered.set_result(question())
            except HostError as error:
                answered.set_exception(error)
            return answered

    def _afford(self, now: float) -> bool:
        return not self._scheduler.metered or self._budget.take(now)

    def answer(self, watches: Sequence[Watch], now: float) -> Iterator[HostUnreachableError]:
        """Hand out the answer of a question that is done; yield the error that kept it from being asked.

        A query that the host could not do (the shared budget is used up, somebody else's hangs) is no answer,
        and no reason to end anybody's watching.
        """
        if self._queue and self._queue.done():
            future, self._queue = self._queue, None
            yield from self._deliver_queue(future)
        if self._accounting and self._accounting.done():
            done, self._accounting = self._accounting, None
            yield from self._deliver_accounting(done)

    def _deliver_queue(self, future: Future[Mapping[str, QueueRow] | None]) -> Iterator[HostUnreachableError]:
        try:
            rows = future.result()
        except HostUnreachableError as error:
            yield error
            return
        except SatelliteError:
            return
        if rows is None:
            return  # a failed query is no observation
        for watch in self._asked:
            answer = Answer(rows.get(watch.handle.job_id), self._asked_at)
            watch.evidence = replace(watch.evidence, queue=answer)

    def _deliver_accounting(
        self, future: Future[Mapping[str, AccountingRow] | None]
    ) -> Iterator[HostUnreachableError]:
        try:
            rows = future.result()
        except HostUnreachableError as error:
            yield error
            return
        except SatelliteError:
            return
        for watch in self._asked:
            row = (rows or {}).get(watch.handle.job_id)
            if row is not None:
                watch.evidence = replace(watch.evidence, accounting=Answer(row, self._asked_at))
