"""Calls of a step, each in a thread of its own."""

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dagster_slurm_components.pipes.call import Call, Calls


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads change as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_calls_are_added_while_others_are_waited_for(hasty: None) -> None:
    """`result()` in one thread raised `Set changed size during iteration`, as another thread submitted."""
    calls, errors = Calls(), []
    kept: list[Call[Any]] = []

    def add() -> None:
        for _ in range(20_000):
            each: Call[Any] = Call.__new__(Call)
            kept.append(each)
            calls.add(each)

    def look() -> None:
        try:
            for _ in range(300):
                list(calls)
        except RuntimeError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for work in (add, add, look, look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(calls) == set(kept)
