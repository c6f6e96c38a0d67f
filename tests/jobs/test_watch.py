"""The watcher with a host of files, a queue that can fail, and a clock that only moves when told."""

from __future__ import annotations

import time

import pytest
from watch_fixture import STARTED, World, events, handle, text

from dagster_slurm_components.errors import (
    HostRefusedError,
    HostUnreachableError,
    LoginRequiredError,
    SatelliteError,
)
from dagster_slurm_components.jobs.events import (
    MESSAGES,
    STDOUT,
    Changed,
    Ended,
    Event,
    HostBack,
    HostLost,
    Output,
    OutputSkipped,
    Watch,
    WatchFailed,
)
from dagster_slurm_components.jobs.reconcile import Patience
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.jobs.watch import read_interval
from dagster_slurm_components.slurm.accounting import AccountingRow
from dagster_slurm_components.slurm.queue import parse_squeue
from dagster_slurm_components.slurm.states import Phase


def test_a_whole_life_from_files_alone(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.step()
    assert events(watch) == []
    world.files.append("/runs/1/status", STARTED)
    world.files.append("/runs/1/stdout.log", b"hel")
    world.step()
    world.files.append("/runs/1/stdout.log", b"lo\n")
    world.step()
    world.files.append("/runs/1/messages.jsonl", b"{}\n")
    world.files.append("/runs/1/stdout.log", b"last words")
    world.files.append("/runs/1/status", b"exit=0\n")
    world.run(1)
    found = events(watch)
    assert text(found, STDOUT) == b"hello\nlast words"
    assert text(found, MESSAGES) == b"{}\n"
    assert isinstance(found[-1], Ended)
    assert found[-1].observation.state == "COMPLETED"
    assert [event.observation.state for event in found if isinstance(event, Changed)] == [
        "RUNNING",
        "COMPLETED",
    ]
    world.step()
    assert world.watcher.idle


def test_output_comes_before_the_end_however_much_there_is(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED + b"exit=0\n")
    data = bytes(range(256)) * 12_000
    world.files.append("/runs/1/stdout.log", data)
    for _ in range(40):
        world.step()
    found = events(watch)
    assert text(found, STDOUT) == data
    assert isinstance(found[-1], Ended)


def test_f01_a_lost_host_changes_nothing_and_nothing_is_lost(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.step()
    world.files.error = HostUnreachableError("connection reset", where="login")
    world.run(1800, every=10)
    world.files.error = None
    world.files.append("/runs/1/stdout.log", b"went on\n")
    world.files.append("/runs/1/status", b"exit=0\n")
    world.run(3, every=1)
    found = events(watch)
    kinds = [type(event) for event in found]
    assert kinds.count(HostLost) == 1
    assert kinds.count(HostBack) == 1
    assert text(found, STDOUT) == b"went on\n"
    assert isinstance(found[-1], Ended)


def test_a_refusing_host_ends_the_watching_with_its_words(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.files.error = HostRefusedError("the host key has changed", where="login")
    world.step()
    found = events(watch)
    assert isinstance(found[-1], WatchFailed)
    assert "host key" in str(found[-1].error)


def test_f13_a_failing_queue_for_ten_minutes_is_no_news(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.run(600, every=1)
    assert world.queue.asked > 3
    states = [event.observation.state for event in events(watch) if isinstance(event, Changed)]
    assert states == ["RUNNING"]


def test_f33_a_requeued_jobs_messages_begin_anew(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.files.append("/runs/1/messages.jsonl", b"old\n")
    world.run(0.4)
    world.files.content["/runs/1/messages.jsonl"] = b"n\n"
    world.files.inodes["/runs/1/messages.jsonl"] = 2
    world.files.append("/runs/1/status", b"restart=1\nstarted=9\n")
    world.run(1)
    found = [event for event in events(watch) if isinstance(event, Output) and event.name == MESSAGES]
    assert [(event.data, event.rewound) for event in found] == [
        (b"old\n", False),
        (b"", True),
        (b"n\n", False),
    ]


def test_offsets_given_at_the_start_are_not_delivered_again(world: World) -> None:
    world.files.append("/runs/1/status", STARTED)
    world.files.append("/runs/1/stdout.log", b"seen, new")
    watch = world.watcher.watch(handle(), offsets={STDOUT: 6})
    world.run(1)
    assert text(events(watch), STDOUT) == b"new"


def test_a_slow_reader_stops_the_reading_and_not_the_memory(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.files.append("/runs/1/stdout.log", b"x" * 40_000_000)
    world.run(120)
    assert watch.backlog < 10_000_000
    got = text(events(watch), STDOUT)
    world.run(120)
    got += text(events(watch), STDOUT)
    world.run(120)
    got += text(events(watch), STDOUT)
    assert len(got) > 20_000_000


def test_f34_what_can_not_keep_up_is_left_out_with_a_notice_and_messages_never_are(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.files.append("/runs/1/stdout.log", b"a" * 100_000_000)
    world.files.append("/runs/1/messages.jsonl", b"m" * 3_000_000)
    found: list[Event] = []
    for _ in range(100):
        world.step()
        assert watch.backlog < 10_000_000
        found += events(watch)
    skipped = [event for event in found if isinstance(event, OutputSkipped)]
    assert len(skipped) == 1
    assert len(text(found, STDOUT)) + skipped[0].size == 100_000_000
    assert len(text(found, MESSAGES)) == 3_000_000


def test_f05_a_login_that_expires_is_told_once_more_and_a_host_lost_too_long_ends_the_watching(
    world: World,
) -> None:
    world.watcher.park_timeout = 3600
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.step()
    world.files.error = HostUnreachableError("connection reset", where="login")
    world.run(60, every=10)
    world.files.error = LoginRequiredError("the login asks for otp", where="login")
    world.run(3400, every=10)
    found = events(watch)
    silences = [event.error for event in found if isinstance(event, HostLost)]
    assert [type(error) for error in silences] == [HostUnreachableError, LoginRequiredError]
    assert not any(isinstance(event, WatchFailed) for event in found)
    world.run(300, every=10)
    broken = events(watch)[-1]
    assert isinstance(broken, WatchFailed)
    assert "park_timeout" in str(broken.error)
    assert "takes up the same job" in str(broken.error)


def test_a_host_lost_while_nobody_waited_is_not_lost_since_then(world: World) -> None:
    world.watcher.park_timeout = 3600
    first = world.watcher.watch(handle())
    world.files.error = HostUnreachableError("connection reset", where="login")
    world.step()
    first.close()
    world.step(36_000)
    second = world.watcher.watch(handle())
    world.step()
    assert [type(event) for event in events(second)] == [HostLost]


def test_a_host_that_can_not_do_the_call_for_now_ends_nothing(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.step()
    world.files.error = SatelliteError("Too many open files", code="failed", where="login")
    world.run(60, every=10)
    world.files.error = None
    world.files.append("/runs/1/status", b"exit=0\n")
    world.run(60, every=10)
    found = events(watch)
    assert isinstance(found[-1], Ended)
    assert not any(isinstance(event, WatchFailed) for event in found)


def test_f14_a_query_that_hangs_or_is_over_budget_is_no_answer(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.queue.error = SatelliteError("somebody else's query did not end", code="locked", where="login")
    world.run(600, every=5)
    assert not any(isinstance(event, WatchFailed | HostLost | Ended) for event in events(watch))
    assert world.queue.asked <= 600 / SlurmScheduler.look


def test_many_jobs_cost_one_call_a_tick_and_few_queries(world: World) -> None:
    for number in range(200):
        world.watcher.watch(handle(number))
        world.files.append(f"/runs/{number}/status", STARTED)
    before = world.files.calls
    ticks = 0
    while ticks < 50:
        world.step(2.0)
        ticks += 1
    assert world.files.calls - before <= ticks
    world.queue.asked = 0
    world.run(600, every=2)
    assert world.queue.asked <= 20


def test_f39_more_jobs_than_one_sacct_takes_are_asked_for_in_turn(world: World) -> None:
    watches = [world.watcher.watch(handle(number)) for number in range(1, 251)]
    world.queue.rows = {}
    # The first hundred are never known: they must not keep the others from being asked about.
    world.queue.books = {
        str(number): AccountingRow(job_id=str(number), state="FAILED", exit_code=1)
        for number in range(101, 251)
    }
    world.run(40, every=1)
    states = [watch.observation.state for watch in watches]
    assert states[100:] == ["FAILED"] * 150
    asked = [size for kind, size in world.queue.questions if kind == "accounting"]
    assert asked[0] == 100
    assert max(asked) == 100


def test_f20_an_accounting_that_never_answers_leaves_the_queue_its_turn(world: World) -> None:
    world.watcher.watch(handle(1))
    world.watcher.watch(handle(2))
    world.queue.patience = Patience(trace=1e6)
    world.queue.rows = parse_squeue("2|PENDING|1|0|1|None|\n")
    world.run(240, every=1)  # the burst is used up
    world.queue.questions.clear()
    world.run(240, every=1)
    kinds = [kind for kind, _ in world.queue.questions]
    assert kinds.count("queue") >= 3
    assert len(kinds) <= 9, "two a minute"
    assert world.queue.looks <= 2 * 480 / SlurmScheduler.look, "a host that refuses is not asked each second"


STOPPED = b"signal=TERM\nended=100\nexit=143\n"
TIME_LIMIT = b"slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***\n"


def ending(world: World, watch: Watch, seconds: float) -> tuple[str, float]:
    """Return the state in which a job ended, and when."""
    began = world.now
    while world.now < began + seconds:
        world.step(1)
        for event in events(watch):
            if isinstance(event, Ended):
                return event.observation.state, world.now - began
    return watch.observation.state, seconds


@pytest.mark.parametrize("accounting", [True, False])
def test_without_a_budget_an_end_is_named_when_there_is_one_again(world: World, accounting: bool) -> None:
    """H1: TIMEOUT became CANCELLED after 30 s, in which others had used up all queries."""
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.queue.rows = parse_squeue("1|RUNNING|1|0|1|None|\n")
    world.run(120, every=1)
    world.queue.drain()
    world.files.append("/runs/1/status", STOPPED)
    rows = "1|TIMEOUT|1|0|1|TimeLimit|\n"
    world.queue.rows = parse_squeue("" if accounting else rows)
    world.queue.books = {"1": AccountingRow("1", "TIMEOUT")} if accounting else None
    state, seconds = ending(world, watch, 300)
    assert state == "TIMEOUT"
    assert 30 < seconds <= 90


def test_the_daemon_s_words_name_an_end_of_which_slurm_says_nothing(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.run(10, every=1)
    world.queue.error = SatelliteError("Slurm is away", code="locked", where="login")
    world.files.append("/runs/1/stderr.log", TIME_LIMIT)
    world.files.append("/runs/1/status", STOPPED)
    state, seconds = ending(world, watch, 60)
    assert (state, seconds <= 25) == ("TIMEOUT", True)


def test_words_about_an_earlier_start_say_nothing_of_this_one(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.files.append("/runs/1/stderr.log", TIME_LIMIT)
    world.run(2)
    assert watch.evidence.words == "TIMEOUT"
    world.files.append("/runs/1/status", b"restart=1\nstarted=9\n")
    world.run(1)
    assert watch.evidence.words is None


def test_who_cancelled_a_job_is_waited_for_until_the_accounting_could_be_asked(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.run(120, every=1)
    world.queue.drain(1.5)
    world.queue._last["queue"] = 0.0
    world.queue.rows = parse_squeue("1|CANCELLED|1|0|1|None|\n")
    world.queue.books = {"1": AccountingRow("1", "CANCELLED", cancelled_by=7)}
    world.files.append("/runs/1/status", STOPPED)
    _, seconds = ending(world, watch, 200)
    assert watch.evidence.accounting is not None
    assert 15 < seconds < 90


def test_a_job_that_we_cancelled_ourselves_needs_no_explanation(world: World) -> None:
    """Slurm has a moment to confirm it; the budget is used up."""
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.run(120, every=1)
    world.queue.drain()
    world.watcher.cancelled(handle())
    world.files.append("/runs/1/status", STOPPED)
    assert ending(world, watch, 60) == ("CANCELLED", pytest.approx(11, abs=1.1))


def test_an_accounting_that_has_answered_is_not_asked_again(world: World) -> None:
    """One job over its memory limit spent nine queries in 35 s."""
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.run(20, every=1)
    world.queue.questions.clear()
    world.queue.books = {"1": AccountingRow("1", "NODE_FAIL")}
    world.files.append(
        "/runs/1/status", STOPPED
    )  # the queue never says that the job is gone: it may come back
    world.queue.rows = parse_squeue("1|COMPLETING|1|0|1|None|\n")
    world.run(60, every=0.5)
    assert not watch.observation.terminal
    assert [kind for kind, _ in world.queue.questions].count("accounting") == 1


def test_what_the_accounting_said_before_a_job_ended_tells_nothing_of_its_end(world: World) -> None:
    """Somebody asked about its first start, which was preempted."""
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.run(200, every=1)
    world.queue.books, world.queue.books_age = {"1": AccountingRow("1", "PREEMPTED")}, 100.0
    world.files.append("/runs/1/status", STOPPED)
    world.run(20, every=1)
    assert watch.evidence.accounting is None


def test_one_that_does_not_know_the_job_yet_is_asked_ever_less_often(world: World) -> None:
    world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED)
    world.run(20, every=1)
    world.queue.questions.clear()
    world.queue.rows, world.queue.books = {}, {}
    world.run(120, every=0.5)
    assert 4 <= [kind for kind, _ in world.queue.questions].count("accounting") <= 7


def test_a_thousand_jobs_are_two_queries_a_minute_from_the_first_submission_on(world: World) -> None:
    """Their submissions, starts and ends come one after the other, for three minutes."""
    world.queue.books = {}
    world.queue.rows = parse_squeue("".join(f"{number}|RUNNING|1|0|1|None|\n" for number in range(1, 1010)))
    for minute in range(3):
        for first in range(1, 1001, 17):
            for number in range(first, first + 17):
                if minute == 0:
                    world.watcher.watch(handle(number))
                else:
                    news = STARTED if minute == 1 else b"ended=100\nexit=0\n"
                    world.files.append(f"/runs/{number}/status", news)
            world.step(1)
    assert world.queue.asked <= 6


def test_an_answer_from_before_a_job_was_there_says_nothing_of_it(world: World) -> None:
    first = world.watcher.watch(handle(1))
    world.queue.rows = parse_squeue("1|PENDING|1|0|1|None|\n")
    world.run(30, every=1)
    world.queue.drain()
    second = world.watcher.watch(handle(2))
    world.run(50, every=1)
    assert first.evidence.queue is not None
    assert second.evidence.queue is None
    world.run(60, every=1)
    assert second.evidence.queue is not None
    assert second.evidence.queue.row is None


def test_metrics_are_waited_for_a_twentieth_of_the_jobs_time(world: World) -> None:
    watch = world.watcher.watch(handle())
    world.queue.books = None
    world.files.append("/runs/1/status", b"restart=0\nstarted=100\nended=300\nexit=0\n")
    world.step()
    world.step(1)
    assert not any(isinstance(event, Ended) for event in events(watch))
    world.queue.books = {"1": AccountingRow(job_id="1", state="COMPLETED", alloc_cpus=4)}
    world.run(3)
    found = events(watch)
    assert isinstance(found[-1], Ended)
    assert found[-1].evidence.accounting is not None


@pytest.mark.parametrize(("age", "seconds"), [(0, 0.2), (59, 0.2), (300, 1.0), (10_000, 1.5)])
def test_old_jobs_are_looked_at_less_often(age: float, seconds: float) -> None:
    assert read_interval(age) == pytest.approx(seconds)


@pytest.mark.parametrize(("quiet", "seconds"), [(0, 1.5), (300, 1.5), (1000, 5.0), (3000, 15.0), (1e6, 15.0)])
def test_a_quiet_job_is_looked_at_less_often_the_longer_it_is_quiet(quiet: float, seconds: float) -> None:
    assert read_interval(1e6, quiet=quiet) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("age", "seconds"), [(0.0, 0.2), (10.0, 0.2), (60.0, 1.2), (250.0, 5.0), (1e5, 30.0)]
)
def test_a_job_that_has_not_started_is_looked_at_less_often_the_longer_it_waits(
    age: float, seconds: float
) -> None:
    assert read_interval(age, started=False) == pytest.approx(seconds)


def test_f02_a_login_node_gone_for_half_an_hour_with_fifty_jobs_costs_nothing(world: World) -> None:
    watches = [world.watcher.watch(handle(number)) for number in range(50)]
    for number in range(50):
        world.files.append(f"/runs/{number}/status", STARTED)
    world.step()
    for watch in watches:
        events(watch)
    world.files.error = world.queue.error = HostUnreachableError("connection refused", where="login")
    calls = world.files.calls
    world.run(1800, every=10)
    for number, watch in enumerate(watches):
        assert [type(event) for event in events(watch)] == [HostLost]
        assert watch.observation.phase is Phase.RUNNING
        world.files.append(f"/runs/{number}/stdout.log", b"meanwhile\n")
    assert world.files.calls - calls <= 1800 / 10
    world.files.error = world.queue.error = None
    calls, asked = world.files.calls, world.queue.asked
    world.step(10)
    for watch in watches:
        found = events(watch)
        assert isinstance(found[0], Output | HostBack)
        assert text(found, STDOUT) == b"meanwhile\n"
    assert world.files.calls - calls <= 2, "all jobs catch up at once"
    assert world.queue.asked - asked <= 1


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_f36_a_clock_that_is_an_hour_off_changes_nothing(world: World, skew: float) -> None:
    watch = world.watcher.watch(handle())
    began = time.time() + skew
    world.files.append("/runs/1/status", f"restart=0\nstarted={began}\nhost=n1\n".encode())
    world.step()
    assert watch.observation.phase is Phase.RUNNING
    world.files.append("/runs/1/status", f"ended={began + 30}\nexit=0\n".encode())
    world.run(10)
    ended = events(watch)[-1]
    assert isinstance(ended, Ended)
    assert ended.evidence.status is not None
    assert (ended.evidence.status.ended or 0) - (ended.evidence.status.started or 0) == pytest.approx(30)


def test_inodes_given_at_the_start_tell_another_file_from_the_one_that_was_seen(world: World) -> None:
    """A job that was requeued while nobody followed it began its messages anew."""
    world.files.append("/runs/1/status", STARTED)
    world.files.append("/runs/1/messages.jsonl", b"new\n, and long enough")
    world.files.inodes["/runs/1/messages.jsonl"] = 2
    watch = world.watcher.watch(handle(), offsets={MESSAGES: 4}, inodes={MESSAGES: 1})
    same = world.watcher.watch(handle(), offsets={MESSAGES: 4}, inodes={MESSAGES: 2})
    world.run(1)
    found = [event for event in events(watch) if isinstance(event, Output)]
    assert [(event.data, event.rewound) for event in found] == [
        (b"", True),
        (b"new\n, and long enough", False),
    ]
    assert text(events(same), MESSAGES) == b", and long enough"


def test_the_ceiling_of_file_operations_is_divided_among_processes(world: World) -> None:
    for number in range(1, 101):
        world.watcher.watch(handle(number))
        world.files.append(f"/runs/{number}/status", STARTED)
    world.watcher.operations_per_second = 400
    world.run(30, every=0.1)
    alone = world.files.calls
    world.queue.share = 0.1
    world.run(30, every=0.1)  # until the queue was looked at again
    shared = world.files.calls
    world.run(30, every=0.1)
    assert alone >= 25
    assert world.files.calls - shared <= 4


def test_others_take_a_part_of_the_file_operations_at_most(world: World) -> None:
    for number in range(1, 101):
        world.watcher.watch(handle(number))
        world.files.append(f"/runs/{number}/status", STARTED)
    world.watcher.operations_per_second = 400
    world.run(30, every=0.1)
    alone = world.files.calls
    assert world.watcher.pace(1000) == 10
    assert world.watcher.pace(2000) == 30, "one after the other"
    world.run(20, every=0.1)
    assert world.watcher.pace(0) == pytest.approx(10, abs=0.2)
    world.run(10, every=0.1)
    shared = world.files.calls - alone
    assert 0.6 * alone <= shared <= 0.9 * alone
    world.run(30, every=0.1)
    assert world.files.calls - alone - shared > shared
