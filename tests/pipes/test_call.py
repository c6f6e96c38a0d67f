"""Calls in threads of their own: their results, their errors, and an interrupt that is meant for all of them."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from typing import Any

import dagster as dg
import pytest
from waiting import PATIENCE

from dagster_slurm_components.pipes import call as call_module
from dagster_slurm_components.pipes.call import INTERRUPTION, Call, Calls, wait_for


def until_stopped(stop: threading.Event) -> str:
    assert stop.wait(PATIENCE)
    return "stopped"


def test_a_call_returns_its_result_or_raises_its_error() -> None:
    def fails(stop: threading.Event) -> None:
        raise ValueError("of the payload")

    good, bad = Call(lambda stop: 7, name="good"), Call(fails, name="bad")
    for call in (good, bad):
        wait_for([call])
        assert call.done
    assert good.outcome() == 7
    with pytest.raises(ValueError, match="of the payload"):
        bad.outcome()


def test_an_interrupt_inside_a_call_is_its_outcome() -> None:
    """Neither of Dagster's is an ``Exception``: the main thread would wait for ever."""

    def stops(stop: threading.Event) -> None:
        raise dg.DagsterExecutionInterruptedError

    call = Call(stops, name="stops")
    wait_for([call])
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        call.outcome()


def test_a_step_that_is_a_thread_does_its_one_call_itself_and_an_interrupt_reaches_it() -> None:
    def work(stop: threading.Event) -> threading.Thread:
        return threading.current_thread()

    def stops(stop: threading.Event) -> None:
        interruption.set_result(None)
        assert stop.wait(PATIENCE)
        raise dg.DagsterExecutionInterruptedError

    calls, interruption = Calls(), Future[None]()
    assert calls.run(work, name="work") is not threading.current_thread()
    token = INTERRUPTION.set(interruption)
    try:
        assert calls.run(work, name="work") is threading.current_thread()
        other = calls.begin(until_stopped, name="other")
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            calls.run(stops, name="stops")
        assert other.outcome() == "stopped"
    finally:
        INTERRUPTION.reset(token)


def test_the_first_of_several_is_waited_for() -> None:
    slow, fast = Call(until_stopped, name="slow"), Call(lambda stop: 7, name="fast")
    wait_for([slow, fast])
    assert (slow.done, fast.done) == (False, True)
    slow.stop()
    wait_for([slow])
    assert slow.outcome() == "stopped"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, dg.DagsterExecutionInterruptedError])
def test_an_interrupt_stops_all_calls_of_the_step_and_is_raised_when_they_have_ended(
    monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException]
) -> None:
    """By then their jobs are cancelled, or left alone in good order; a second interrupt changes nothing about that."""
    ended: list[str] = []
    interrupts = [interrupt, interrupt]
    heard_again = threading.Event()

    def waits(*args: Any) -> Any:
        if interrupts:
            if len(interrupts) == 1:
                heard_again.set()
            raise interrupts.pop()
        return wait(*args)

    def work(stop: threading.Event) -> None:
        assert stop.wait(PATIENCE)
        assert heard_again.wait(PATIENCE)
        ended.append(threading.current_thread().name)

    monkeypatch.setattr(call_module, "wait", waits)
    calls = [Call(work, name="waited for"), Call(work, name="beside it")]
    with pytest.raises(interrupt):
        wait_for(calls[:1], calls[1:])
    assert sorted(ended) == ["beside it", "waited for"]
    assert interrupts == []


def test_an_interpreter_that_ends_waits_for_its_calls() -> None:
    call = Call(until_stopped, name="waits")
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "waits"]
    assert not thread.daemon
    call.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_step_in_a_thread_is_interrupted_without_a_signal() -> None:
    interruption: Future[None] = Future()
    ended: list[str] = []

    def step() -> None:
        INTERRUPTION.set(interruption)
        calls = [Call(until_stopped, name=str(number)) for number in range(2)]
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            wait_for(calls[:1], calls)
        ended.extend(call.outcome() for call in calls)

    thread = threading.Thread(target=step)
    thread.start()
    interruption.set_result(None)
    thread.join(PATIENCE)
    assert ended == ["stopped", "stopped"]
