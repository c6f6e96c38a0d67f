"""Several calls at once for what travels between this machine and a host, and not more memory than these hold."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
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


def part_name(name: str, *state: object) -> str:
    """Return by which name a file is gathered beside its place: of other content it is another."""
    content = "/".join([name, *map(str, state)]).encode("utf-8", "surrogateescape")
    return f".{name[:48]}.{hashlib.sha256(content).hexdigest()[:16]}.part"


def bring(
    files: Sequence[Item],
    size_of: Callable[[Item], int],
    *,
    large: Callable[[Item], bool],
    small: Callable[[list[Item]], list[Item]],
    got: Callable[[int], None],
    done: Callable[[Item], None],
) -> Sequence[Item]:
    """Bring files, and once more those that arrived as something else; return those that do so again.

    That happens where what an earlier try had brought was of something else. ``large`` brings one file, tells of its
    bytes itself and returns whether it is right; ``small`` brings several and returns those that are wrong.
    """

    def together(batch: list[Item]) -> tuple[list[Item], list[Item]]:
        return batch, small(batch)

    for _ in range(2):
        wrong: list[Item] = []
        for each in files:
            if size_of(each) > PIECE and large(each):
                done(each)
            elif size_of(each) > PIECE:
                wrong.append(each)
        few = (each for each in files if size_of(each) <= PIECE)
        for batch, refused in in_order(partial(together, each) for each in batches(few, size_of)):
            wrong += refused
            for each in batch:
                if each not in refused:
                    got(size_of(each))
                    done(each)
        files = wrong
    return files
