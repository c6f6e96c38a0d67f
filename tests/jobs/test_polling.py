"""The polling of queue and accounting: which is asked, and that the interpreter's end breaks none of it."""

import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence

import pytest
from waiting import PATIENCE

from dagster_slurm_components.jobs.events import Watch
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.polling import Demand, Poller, next_query, not_before
from dagster_slurm_components.jobs.reconcile import Observation
from dagster_slurm_components.jobs.schedulers import AccountingRows, QueueRows, SlurmScheduler
from dagster_slurm_components.slurm.queue import QueueRow
from dagster_slurm_components.slurm.states import Phase

PROGRAM = """
import threading, time
from types import SimpleNamespace
from dagster_slurm_components.jobs.events import Watch
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.polling import Poller
from dagster_slurm_components.jobs.schedulers import QueueRows

asked = []
scheduler = SimpleNamespace(
    has_accounting=False, first_query=0.0, look=100.0, max_age=0.0,
    queue=lambda satellite, handles, age: asked.append(1) or QueueRows(None),
)
watch = Watch(None)
poller = Poller(scheduler, None)
poller.soon(0.0)

def follow():
    threading.main_thread().join()
    time.sleep(0.2)  # what the interpreter does with its threads has no event of its own
    poller.poll([watch], 1.0)
    while poller._pending:
        poller.poll([watch], 1.0)
    print("asked", len(asked))

threading.Thread(target=follow).start()
"""


def test_the_interpreter_s_end_breaks_no_watching() -> None:
    """`cannot schedule new futures after interpreter shutdown`: the job went on, though its caller had cancelled it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.stdout, done.stderr) == ("asked 1\n", "")


@pytest.mark.parametrize(
    ("queue_due", "accounting_due", "last", "query"),
    [
        (False, False, "queue", None),
        (True, False, "queue", "queue"),
        (False, True, "accounting", "accounting"),
        (True, True, "queue", "accounting"),
        (True, True, "accounting", "queue"),
    ],
)
def test_where_both_are_due_they_take_turns(
    queue_due: bool, accounting_due: bool, last: str, query: str | None
) -> None:
    assert next_query(queue_due=queue_due, accounting_due=accounting_due, last=last) == query  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "when"),
    [((), float("-inf")), ((100.0,), 112.0), ((100.0, 112.0), 220.0), ((0.0, 112.0), 120.0)],
)
def test_submissions_one_after_the_other_are_one_piece_of_news(asked: tuple[float, ...], when: float) -> None:
    assert not_before(asked) == when


def test_what_happens_while_a_query_runs_is_wanted_still_and_what_it_tells_of_is_not() -> None:
    """A thousand submissions: each slow answer was followed by a query at once, as somebody had submitted meanwhile."""
    wanted = Demand()
    assert wanted.met
    wanted.add(10.0)
    wanted.add(14.0)
    assert (wanted.met, wanted.first) == (False, 10.0)
    wanted.answer(5.0)
    assert wanted.first == 10.0, "an old answer tells nothing of it"
    wanted.answer(13.0)
    assert (wanted.met, wanted.first) == (False, 13.0)
    wanted.answer(14.0)
    assert wanted.met


@pytest.mark.parametrize(
    ("submissions", "seconds", "reason", "queries"),
    [
        (1, 0.0, "Priority", [3]),
        (1, 0.0, None, [3, 15]),
        (2, 2.0, "Priority", [4]),
        (1000, 10.0, "Priority", [10]),
        (1000, 10.0, None, [10, 22]),
        (1000, 25.0, "Priority", [10, 22]),
    ],
)
def test_what_is_submitted_in_a_burst_is_asked_about_together(
    submissions: int, seconds: float, reason: str | None, queries: Sequence[int]
) -> None:
    """And once more, a little later, only where Slurm has not said yet why a job waits."""
    asked: list[float] = []

    class Quick(SlurmScheduler):
        def queue(self, satellite: object, handles: object, max_age: float = 0.0) -> QueueRows:
            fresh = not asked or now - asked[-1] >= max_age
            if fresh:
                asked.append(now)
            return QueueRows({"7": QueueRow("7", "PENDING", reason)}, now - asked[-1], fresh)

    now, watch = 1000.0, Watch(JobHandle("7", "/runs/7"), began=1000.0)
    poller = Poller(Quick("/nowhere"), None)  # type: ignore[arg-type]
    times = deque(1000.0 + number * seconds / submissions for number in range(submissions))
    for tenth in range(450):
        now = 1000.0 + tenth / 10
        while times and times[0] <= now:
            poller.soon(times.popleft())
        poller._ask([watch], now)
        pending, poller._pending = poller._pending, None
        if pending is not None and pending.answer.result(PATIENCE):
            poller._deliver(pending, now + 0.05)  # an answer takes a moment
    assert [int(at - 1000) for at in asked] == queries


def test_an_accounting_that_hangs_keeps_nobody_from_asking_the_queue() -> None:
    """The end of a job was named after two minutes: the queue knew it, and sacct's timeout had to pass first."""
    asked: list[tuple[str, float]] = []
    hangs = threading.Event()

    class Hanging(SlurmScheduler):
        def queue(self, satellite: object, handles: object, max_age: float = 0.0) -> QueueRows:
            asked.append(("queue", now))
            return QueueRows({"7": QueueRow("7", "TIMEOUT")}, 0.0, fresh=True)

        def accounting(self, *args: object, **more: object) -> AccountingRows:
            asked.append(("accounting", now))
            assert hangs.wait(PATIENCE)
            return AccountingRows({}, 0.0)

    now = 1000.0
    watch = Watch(JobHandle("7", "/runs/7"), began=now)
    watch.observation = Observation(phase=Phase.ENDING, ended_since=now)
    poller = Poller(Hanging("/nowhere"), None)  # type: ignore[arg-type]
    poller.soon(now, urgent=True)
    for now in (1001.0, 1003.0, 1007.0, 1030.0):
        poller.poll([watch], now)
        if poller._pending and poller._pending.query == "queue":
            poller._pending.answer.result(PATIENCE)
            poller.poll([watch], now)
    assert asked[:2] == [("accounting", 1001.0), ("queue", 1007.0)]
    assert [query for query, _ in asked].count("accounting") == 1, "it is not asked again meanwhile"
    assert watch.evidence.queue is not None
    hangs.set()
    assert poller._slow is not None
    poller._slow.answer.result(PATIENCE)
    poller.poll([watch], 1031.0)
    assert (poller._slow, watch.accounting_asked) == (None, 1001.0)


def test_a_slow_slurm_is_asked_no_more_often_than_a_quick_one() -> None:
    """Each answer takes 20 s, and each second a job is submitted."""
    asked: list[float] = []

    class Slow(SlurmScheduler):
        def queue(self, satellite: object, handles: object, max_age: float = 0.0) -> QueueRows:
            fresh = not asked or poller_now - asked[-1] > max_age
            if fresh:
                asked.append(poller_now)
            return QueueRows({}, poller_now - asked[-1], fresh)

    poller_now, watch = 1000.0, Watch(JobHandle("7", "/runs/7"), began=1e9)
    poller = Poller(Slow("/nowhere"), None)  # type: ignore[arg-type]
    answer_at = 0.0
    for second in range(300):
        poller_now = 1000.0 + second
        poller.soon(poller_now)
        if poller._pending is None:
            poller._ask([watch], poller_now)
            answer_at = poller_now + 20
        elif poller_now >= answer_at and poller._pending.answer.result(PATIENCE):
            pending, poller._pending = poller._pending, None
            poller._deliver(pending, poller_now)
    assert 4 <= len(asked) <= 7
