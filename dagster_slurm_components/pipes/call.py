"""A call of a step in a thread of its own: no signal cuts it in two, and several run side by side."""

import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import dagster as dg

Result = TypeVar("Result")

INTERRUPTS = (dg.DagsterExecutionInterruptedError, KeyboardInterrupt)
"""What Dagster turns signals into. Neither is an ``Exception``."""
INTERRUPTION: contextvars.ContextVar[Future[None] | None] = contextvars.ContextVar(
    "dagster_slurm_interruption", default=None
)
"""Set while a step is executed as a thread: it takes the place of signals, which reach main threads alone."""
_LISTEN = 0.5


class Call(Generic[Result]):
    """A piece of work in a thread; it gets the event that tells it to stop."""

    def __init__(self, work: Callable[[threading.Event], Result], *, name: str) -> None:
        self._stop = threading.Event()
        self.future: Future[Result] = Future()

        def run() -> None:
            try:
                self.future.set_result(work(self._stop))
            except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
                self.future.set_exception(error)

        # In the context of its step, whose output is told apart by that. Not a daemon: an interpreter that ends waits
        # for what has begun.
        threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name).start()

    def stop(self) -> None:
        """Ask the work to stop."""
        self._stop.set()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.future.done()

    def outcome(self) -> Result:
        """Return the result of work that has ended, or raise its error."""
        return self.future.result()


class Calls:
    """The calls of a step that are under way, for any thread to add to and to look through."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: WeakSet[Call[Any]] = WeakSet()

    def begin(self, work: Callable[[threading.Event], Result], *, name: str) -> Call[Result]:
        """Begin a piece of work as one of them."""
        call = Call(work, name=f"dagster-slurm-{name}")
        self.add(call)
        return call

    def run(self, work: Callable[[threading.Event], Result], *, name: str) -> Result:
        """Do a piece of work as one of them, and wait for its end as ``wait_for`` does."""
        interruption = INTERRUPTION.get()
        if interruption is None:
            call = self.begin(work, name=name)
            wait_for([call], self)
            return call.outcome()
        stop = threading.Event()  # no signal reaches this thread: it needs no other one
        interruption.add_done_callback(lambda _: stop.set())
        try:
            return work(stop)
        except INTERRUPTS:
            _stop_all(list(self))
            raise

    def add(self, call: Call[Any]) -> None:
        """Add a call; once it has ended and nobody knows it any more it is forgotten."""
        with self._lock:
            self._calls.add(call)

    def __iter__(self) -> Iterator[Call[Any]]:
        with self._lock:  # a set that grows meanwhile can't be looked through
            return iter(list(self._calls))


def wait_for(
    calls: Sequence[Call[Any]], others: Iterable[Call[Any]] = (), *, news: Future[None] | None = None
) -> None:
    """Wait until one of these calls has ended, or there is news.

    An interrupt (a signal in the main thread, or `INTERRUPTION`) asks all calls, and the others of the step, to stop,
    and is raised once they have: by then their jobs are cancelled, or left alone in good order.
    """
    interruption = INTERRUPTION.get()
    timeout = _LISTEN if interruption is None else None
    also = [future for future in (interruption, news) if future is not None]
    try:
        while not any(call.done for call in calls) and not (news and news.done()):
            # In the main thread in short pieces, so that signals are heard.
            wait([*(call.future for call in calls), *also], timeout, FIRST_COMPLETED)
            if interruption is not None and interruption.done():
                raise dg.DagsterExecutionInterruptedError
    except INTERRUPTS:
        _stop_all([*calls, *others])
        raise


def _stop_all(calls: Sequence[Call[Any]]) -> None:
    """Stop calls and see them end, whatever further signals come."""
    for call in calls:
        call.stop()
    while not all(call.done for call in calls):
        try:
            wait([call.future for call in calls], _LISTEN)
        except INTERRUPTS:
            continue
