"""Several calls at once for what travels between this machine and a host, and not more memory than these hold."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

PIECE = 2 * 2**20
"""Bytes that one call carries, of one file or of many. The host's connection shares calls among a few channels."""
AT_ONCE = 8
_MANY = 256

Result = TypeVar("Result")
Item = TypeVar("Item")


def in_order(calls: Iterable[Callable[[], Result]]) -> Iterator[Result]:
    """Make calls, a few at a time, and yield their results in order; the first error ends it."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="transfer") as pool:
        waiting: deque[Future[Result]] = deque()
        for call in calls:
            waiting.append(pool.submit(call))
            if len(waiting) == AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def batches(items: Iterable[Item], size_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Yield items together that one call carries.

    >>> [*batches([1, 2**20, 2**20, 2**20], lambda size: size)]
    [[1, 1048576], [1048576, 1048576]]
    """
    batch: list[Item] = []
    total = 0
    for item in items:
        size = size_of(item)
        if batch and (total + size > PIECE or len(batch) == _MANY):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
    if batch:
        yield batch
