"""What many threads ask for at the same time is done once, for all of them, and each hears what became of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from dagster_slurm_components.together import Together


def test_one_that_comes_alone_does_it_itself() -> None:
    threads = []

    def do(wishes: Sequence[int]) -> Sequence[int]:
        threads.append(threading.current_thread())
        return [2 * each for each in wishes]

    double = Together(do, gather=3600.0)  # for which nobody waits here
    assert [double(1), double(2)] == [2, 4]
    assert threads == [threading.current_thread()] * 2


def test_those_that_come_meanwhile_are_one_batch_and_have_their_own_answers() -> None:
    batches: list[Sequence[int]] = []
    began, go_on = threading.Event(), threading.Event()

    def do(wishes: Sequence[int]) -> Sequence[int]:
        batches.append(wishes)
        began.set()
        go_on.wait()
        return [2 * each for each in wishes]

    double = Together(do)
    with ThreadPoolExecutor(11) as pool:
        first = pool.submit(double, 0)
        began.wait()
        others = [pool.submit(double, number) for number in range(1, 11)]
        while len(double._waiting) < len(others):
            pass
        go_on.set()
        assert first.result() == 0
        assert [other.result() for other in others] == [2 * number for number in range(1, 11)]
    assert [sorted(batch) for batch in batches] == [[0], list(range(1, 11))]


def test_each_has_its_own_error() -> None:
    began, go_on = threading.Event(), threading.Event()

    def do(wishes: Sequence[int]) -> Sequence[float]:
        began.set()
        go_on.wait()
        return [1 / each for each in wishes]

    invert = Together(do)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(invert, 1)
        began.wait()
        others = [pool.submit(invert, number) for number in (2, 0, 4)]
        while len(invert._waiting) < len(others):
            pass
        go_on.set()
        assert [first.result(), others[0].result(), others[2].result()] == [1, 0.5, 0.25]
        with pytest.raises(ZeroDivisionError):
            others[1].result()


def test_an_interrupt_ends_the_waiting_of_all() -> None:
    def do(wishes: Sequence[int]) -> Sequence[int]:
        raise KeyboardInterrupt

    ask = Together(do)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            ask(1)
