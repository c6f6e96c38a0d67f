"""How far a payload is, and whether it will be done in time: by messages, and by bars of tqdm."""

from __future__ import annotations

import pytest

from dagster_slurm_components.jobs.events import MESSAGES, STDERR, STDOUT, Output
from dagster_slurm_components.jobs.progress import Progress

HOUR = 3600.0


def message(percent: int) -> Output:
    line = (
        f'{{"method": "log", "params": {{"message": "{percent} % ({percent} of 100)", "level": "INFO"}}}}\n'
    )
    return Output(MESSAGES, line.encode())


def bar(*percents: int) -> Output:
    states = [f"\r {each}%|████▌     | {each}/100 [00:10<00:15,  3.99it/s]" for each in percents]
    return Output(STDERR, "".join(states).encode())


@pytest.mark.parametrize("told", [message, bar])
def test_the_rest_is_told_at_the_speed_so_far(told: object) -> None:
    progress = Progress()
    for hour in range(5):
        progress.feed(told(10 * hour), hour * HOUR)  # type: ignore[operator]
    assert progress.in_words(4 * HOUR, None) == "40 % done, about 6 h 0 min more"
    assert (
        progress.in_words(4.5 * HOUR, 90 * 60)
        == "40 % done, about 5 h 30 min more; the time limit ends it in 1 h 30 min"
    )


def test_what_will_not_be_done_in_time_is_warned_of_once() -> None:
    progress = Progress()
    progress.feed(message(10), 0)
    assert progress.warning(0, 60) == "", "one word says nothing of the speed"
    progress.feed(message(20), HOUR)
    assert progress.warning(HOUR, 9 * HOUR) == ""
    assert progress.warning(HOUR, 7.9 * HOUR) == "", "too close to call"
    assert (
        progress.warning(HOUR, 2 * HOUR)
        == "20 % done, about 8 h 0 min more; the time limit ends it in 2 h 0 min"
    )
    assert progress.warning(HOUR, 2 * HOUR) == ""


def test_bars_of_parts_of_the_work_tell_nothing_of_the_whole() -> None:
    progress = Progress()
    progress.feed(bar(0, 50, 100), 10)
    progress.feed(bar(0, 50), 20)
    assert progress.in_words(20, 60) == ""
    progress.feed(bar(60, 90), 30)
    assert (progress.in_words(30, 1), progress.warning(30, 1)) == ("", "")


def test_what_the_payload_itself_reports_counts_before_bars() -> None:
    progress = Progress()
    progress.feed(bar(0, 90), 0)
    progress.feed(message(1), 10)
    progress.feed(bar(99), 20)
    assert progress.in_words(20, None) == "1 % done"


def test_a_requeued_job_begins_anew() -> None:
    progress = Progress()
    progress.feed(message(10), 0)
    progress.feed(message(80), HOUR)
    progress.feed(Output(MESSAGES, b"", rewound=True), HOUR)
    assert progress.in_words(HOUR, None) == ""
    progress.feed(message(10), 2 * HOUR)
    assert progress.in_words(2 * HOUR, None) == "10 % done"


@pytest.mark.parametrize(
    "event",
    [
        Output(STDERR, b"disk is 91% full\n"),
        Output(STDERR, b"\r3it [00:10, 3.99it/s]"),
        Output(STDERR, b"5%|"),
        Output(STDOUT, bar(50).data),
        Output(MESSAGES, b'{"message": "half done: 50 % (of it)"}'),
        Output(MESSAGES, b"\xff%"),
    ],
)
def test_what_only_looks_like_it_is_none(event: Output) -> None:
    progress = Progress()
    progress.feed(event, 1)
    assert progress.in_words(1, 60) == ""


@pytest.mark.parametrize("event", [message(300), bar(300)])
def test_nothing_is_more_than_done(event: Output) -> None:
    progress = Progress()
    progress.feed(event, 1)
    assert progress.in_words(1, None) == "100 % done"
