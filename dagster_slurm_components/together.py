"""What many threads ask for at the same time is done once, for all of them."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Wish = TypeVar("Wish")
Answer = TypeVar("Answer")


class Together(Generic[Wish, Answer]):
    """Does what threads wish: one that comes alone does it itself, at once; what a crowd wishes is done in batches.

    An answer is of a batch that began after the wish was made. A batch that fails is done again one by one, so that
    each has its own error.

    Args:
        do: Returns the answers to wishes, in their order. One batch is done at a time.
        gather: Seconds that each of a crowd waits for others. It is one while batches have more than one wish.

    Example:
        .. code-block:: python

            records = Together(lambda run_ids: [instance.get_run_by_id(each) for each in run_ids])
            run = records(run_id)
    """

    def __init__(self, do: Callable[[Sequence[Wish]], Sequence[Answer]], *, gather: float = 0.0) -> None:
        self._do = do
        self._gather = gather
        self._lock = threading.Lock()
        self._busy = False
        self._crowd_until = 0.0
        self._waiting: list[tuple[Wish, Future[Answer]]] = []
        self._thread = ThreadPoolExecutor(1, "dagster-slurm-together")

    def __call__(self, wish: Wish) -> Answer:
        """Return the answer to a wish, or raise its error."""
        answer: Future[Answer] = Future()
        with self._lock:
            self._waiting.append((wish, answer))
            first, self._busy = not self._busy, True
        if first and time.monotonic() < self._crowd_until:
            self._next_with_others()
        elif first:
            self._next()
        return answer.result()

    def _next_with_others(self) -> None:
        def next_later() -> None:
            time.sleep(self._gather)
            self._next()

        try:
            self._thread.submit(next_later)
        except RuntimeError:  # the interpreter is ending, and starts no more threads
            self._next()

    def _next(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, []
        self._fulfil(batch)
        self._crowd_until = time.monotonic() + self._gather if len(batch) > 1 else 0.0
        with self._lock:
            self._busy = more = bool(self._waiting)
        if more:
            self._next_with_others()

    def _fulfil(self, batch: Sequence[tuple[Wish, "Future[Answer]"]]) -> None:
        try:
            answers = self._do([wish for wish, _ in batch])
        except BaseException as error:  # noqa: BLE001 - raised where the answer is awaited
            if len(batch) > 1 and isinstance(error, Exception):
                for each in batch:
                    self._fulfil([each])
                return
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)
