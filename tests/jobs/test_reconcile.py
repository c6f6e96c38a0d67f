"""Three sources, one decision: each row of the fault matrix that concerns states has a test of its name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.jobs.reconcile import (
    LOST,
    Evidence,
    Observation,
    Patience,
    QueueAnswer,
    reconcile,
)
from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.slurm.accounting import AccountingRow
from dagster_slurm_components.slurm.queue import QueueRow
from dagster_slurm_components.slurm.states import STATES, Phase

PATIENCE = Patience(settle=15, explanation=30, absence=300, trace=900)


def queue(word: str, *, restarts: int = 0, at: float = 0.0, reason: str | None = None) -> QueueAnswer:
    row = QueueRow(
        job_id="7",
        state=word,
        reason=reason,
        start=None,
        restarts=restarts,
    )
    return QueueAnswer(row, at)


def gone(at: float) -> QueueAnswer:
    return QueueAnswer(None, at)


def books(word: str) -> AccountingRow:
    return AccountingRow(job_id="7", state=word)


def status(exit_code: int | None = None, *, signals: tuple[str, ...] = (), restart: int = 0) -> StatusRecord:
    return StatusRecord(restart=restart, started=1.0, host="n1", exit_code=exit_code, signals=signals)


def see(evidence: Evidence, now: float = 0.0, before: Observation | None = None) -> Observation:
    return reconcile(before or Observation(), evidence, now, PATIENCE)


def test_nothing_heard_is_nothing_new() -> None:
    assert see(Evidence(), now=10_000) == Observation()


@pytest.mark.parametrize(("code", "word"), [(0, "COMPLETED"), (1, "FAILED"), (3, "FAILED"), (128, "FAILED")])
def test_the_jobs_own_exit_code_ends_it_at_once(code: int, word: str) -> None:
    seen = see(Evidence(status=status(code)))
    assert (seen.state, seen.exit_code, seen.terminal, seen.source) == (word, code, True, "status")


def test_a_started_job_runs_before_any_query() -> None:
    assert see(Evidence(status=status())).state == "RUNNING"


def test_an_older_queue_answer_does_not_undo_the_start() -> None:
    assert see(Evidence(status=status(), queue=queue("PENDING"))).state == "RUNNING"


def test_f13_a_failing_squeue_for_ten_minutes_changes_nothing() -> None:
    seen = see(Evidence(status=status()))
    for now in range(0, 600, 10):
        seen = see(Evidence(status=status()), now=now, before=seen)
    assert seen.state == "RUNNING"


@pytest.mark.parametrize("late", [0, 5, 60, 600])
def test_f16_a_vanished_job_waits_for_late_accounting(late: int) -> None:
    running = see(Evidence(status=status()))
    seen = see(Evidence(status=status(), queue=gone(10)), now=10, before=running)
    assert not seen.terminal
    assert seen.wants_accounting
    evidence = Evidence(status=status(), queue=gone(10), accounting=books("TIMEOUT"))
    assert see(evidence, now=10 + late, before=seen).state == "TIMEOUT"


def test_f17_no_trace_at_all_is_lost_after_a_bounded_wait() -> None:
    seen = see(Evidence(queue=gone(10)), now=10)
    assert not see(Evidence(queue=gone(10)), now=909, before=seen).terminal
    assert see(Evidence(queue=gone(10)), now=911, before=seen).state == LOST


def test_f17_the_exit_file_decides_without_accounting() -> None:
    seen = see(Evidence(status=status(), queue=gone(10)), now=10)
    assert see(Evidence(status=status(0), queue=gone(10)), now=12, before=seen).state == "COMPLETED"


def test_f19_stale_accounting_does_not_keep_an_ended_job_alive() -> None:
    evidence = Evidence(status=status(0), queue=gone(10), accounting=books("RUNNING"))
    assert see(evidence, now=10).state == "COMPLETED"


def test_f22_a_requeued_job_is_not_over_though_its_first_start_wrote_an_exit_code() -> None:
    stopped = status(143, signals=("TERM",))
    seen = see(Evidence(status=stopped), now=5)
    assert seen.state == "COMPLETING"
    requeued = Evidence(status=stopped, queue=queue("PENDING", restarts=1), accounting=books("PREEMPTED"))
    seen = see(requeued, now=6, before=seen)
    assert (seen.state, seen.restarts, seen.exit_code) == ("PENDING", 1, None)
    again = Evidence(status=status(0, restart=1), queue=queue("RUNNING", restarts=1))
    seen = see(again, now=60, before=seen)
    assert (seen.state, seen.restarts) == ("COMPLETED", 1)


def test_f23_preempted_and_never_back_is_over_after_the_deadline() -> None:
    """The queue has not been heard since: Slurm may start the job again without our knowing."""
    evidence = Evidence(
        status=status(143, signals=("TERM",)), queue=queue("RUNNING"), accounting=books("PREEMPTED")
    )
    seen = see(evidence, now=10)
    assert (seen.state, seen.phase) == ("PREEMPTED", Phase.ENDING), "the log says what is waited for"
    assert not see(evidence, now=300, before=seen).terminal
    assert see(evidence, now=311, before=seen).state == "PREEMPTED"


@pytest.mark.parametrize("word", ["PREEMPTED", "NODE_FAIL"])
def test_f23_a_job_that_the_queue_does_not_know_any_more_is_not_started_again(word: str) -> None:
    evidence = Evidence(status=status(), queue=gone(10), accounting=books(word))
    seen = see(evidence, now=10)
    assert (seen.state, seen.phase) == (word, Phase.ENDING)
    assert not see(evidence, now=24, before=seen).terminal
    assert see(evidence, now=25, before=seen).state == word


@pytest.mark.parametrize("word", ["PREEMPTED", "NODE_FAIL"])
@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(status=status()),
        Evidence(status=status(143, signals=("TERM",))),
    ],
    ids=["killed", "told to stop"],
)
def test_what_the_queue_shows_as_ended_is_known_at_once(word: str, evidence: Evidence) -> None:
    """slurmctld requeues in one step: such a job is PENDING at the next look, never PREEMPTED."""
    assert see(replace(evidence, queue=queue(word)), now=5).state == word


def test_a_job_that_may_not_be_requeued_is_over_at_once() -> None:
    running = queue("RUNNING")
    assert running.row is not None
    seen = see(Evidence(status=status(), queue=replace(running, row=replace(running.row, requeue=False))))
    ended = Evidence(status=status(143, signals=("TERM",)), queue=running, accounting=books("NODE_FAIL"))
    assert see(ended, now=10, before=seen).state == "NODE_FAIL"


def test_a_job_that_comes_back_to_the_queue_was_never_gone() -> None:
    seen = see(Evidence(status=status(), queue=gone(10)), now=10)
    seen = see(Evidence(status=status(), queue=queue("RUNNING", at=20)), now=20, before=seen)
    assert (seen.state, seen.absent_since) == ("RUNNING", None)


def test_f25_unknown_states_are_alive() -> None:
    assert see(Evidence(queue=queue("FOO"))).phase is Phase.RUNNING


def test_f26_a_killed_payload_waits_for_the_reason() -> None:
    seen = see(Evidence(status=status(137)), now=5)
    assert not seen.terminal
    assert (
        see(Evidence(status=status(137), accounting=books("OUT_OF_MEMORY")), 6, seen).state == "OUT_OF_MEMORY"
    )
    assert see(Evidence(status=status(137), asked=6), now=36, before=seen).state == "FAILED"


@pytest.mark.parametrize(
    ("asked", "now", "terminal"),
    [
        (None, 36, False),
        (4.0, 36, False),
        (4.0, 904, False),
        (4.0, 905, True),
        (5.0, 34, False),
        (5.0, 35, True),
        (60.0, 60, True),
    ],
)
def test_a_question_that_could_not_be_asked_is_no_silence(
    asked: float | None, now: float, terminal: bool
) -> None:
    """The budget was used up by 20 processes: TIMEOUT became CANCELLED after half a minute."""
    evidence = Evidence(status=status(143, signals=("TERM",)))
    seen = see(evidence, now=5)
    assert see(replace(evidence, asked=asked), now=now, before=seen).terminal is terminal


@pytest.mark.parametrize(
    ("words", "code", "signals", "state"),
    [
        ("TIMEOUT", 143, ("TERM",), "TIMEOUT"),
        ("TIMEOUT", 0, ("TERM",), "TIMEOUT"),
        ("OUT_OF_MEMORY", 137, (), "OUT_OF_MEMORY"),
        ("TIMEOUT", 3, (), "FAILED"),
        ("OUT_OF_MEMORY", 0, (), "COMPLETED"),
    ],
)
def test_the_daemon_s_words_are_stronger_than_silence(
    words: str, code: int, signals: tuple[str, ...], state: str
) -> None:
    evidence = Evidence(status=status(code, signals=signals), words=words)
    seen = see(evidence, now=5)
    assert see(evidence, now=20, before=seen).state == state
    unclear = bool(signals) or code > 128
    assert see(evidence, now=19, before=seen).terminal is not unclear


def test_and_weaker_than_slurms_answer() -> None:
    evidence = Evidence(status=status(143, signals=("TERM",)), words="TIMEOUT", accounting=books("NODE_FAIL"))
    seen = see(replace(evidence, accounting=replace(books("CANCELLED"), cancelled_by=5)), now=5)
    assert seen.state == "CANCELLED"
    assert see(replace(evidence, queue=queue("DEADLINE")), now=5).state == "DEADLINE"


@pytest.mark.parametrize(
    ("word", "words", "state"),
    [
        ("FAILED", "OUT_OF_MEMORY", "OUT_OF_MEMORY"),
        ("CANCELLED", "TIMEOUT", "TIMEOUT"),
        ("CANCELLED", "CANCELLED", "CANCELLED"),
        ("TIMEOUT", "CANCELLED", "TIMEOUT"),
    ],
)
def test_they_name_what_the_queue_leaves_vague(word: str, words: str, state: str) -> None:
    assert see(Evidence(status=status(), queue=queue(word), words=words), now=5).state == state


def test_that_a_job_was_cancelled_says_by_itself_less_than_slurm_may() -> None:
    evidence = Evidence(status=status(137), words="CANCELLED")
    seen = see(evidence, now=5)
    assert not see(replace(evidence, asked=6), now=34, before=seen).terminal
    assert see(replace(evidence, asked=6), now=35, before=seen).state == "CANCELLED"


def test_f27_a_payload_that_ends_well_after_the_time_limits_signal_still_timed_out() -> None:
    evidence = Evidence(status=status(0, signals=("TERM",)), accounting=books("TIMEOUT"))
    assert see(evidence, now=5).state == "TIMEOUT"


def test_a_checkpoint_signal_is_no_stop() -> None:
    assert see(Evidence(status=status(0, signals=("USR1",)))).state == "COMPLETED"


def test_f28_a_pending_job_cancelled_by_somebody_is_over_at_once() -> None:
    assert see(Evidence(queue=queue("CANCELLED"))).state == "CANCELLED"


def test_f35_a_late_status_file_is_waited_for() -> None:
    running = see(Evidence(status=status()))
    evidence = Evidence(status=status(), queue=queue("COMPLETED"))
    seen = see(evidence, now=10, before=running)
    assert not seen.terminal
    with_code = see(Evidence(status=status(0), queue=queue("COMPLETED")), now=14, before=seen)
    assert (with_code.state, with_code.exit_code) == ("COMPLETED", 0)
    assert see(evidence, now=26, before=seen).state == "COMPLETED"


def test_a_reason_is_kept_while_the_job_waits_only() -> None:
    seen = see(Evidence(queue=queue("PENDING", reason="Priority")))
    assert seen.reason == "Priority"
    assert see(Evidence(status=status(), queue=queue("RUNNING")), before=seen).reason is None


words = st.sampled_from([*STATES, "FOO", ""])
evidences = st.builds(
    Evidence,
    status=st.none()
    | st.builds(
        status,
        st.none() | st.integers(0, 255),
        signals=st.sampled_from([(), ("TERM",), ("USR1",)]),
        restart=st.integers(0, 3),
    ),
    queue=st.none()
    | st.builds(queue, words, restarts=st.integers(0, 3))
    | st.builds(gone, st.floats(0, 1000)),
    accounting=st.none() | st.builds(books, words),
)


@given(st.lists(st.tuples(evidences, st.floats(0, 2000)), max_size=20))
def test_any_story_never_raises_and_a_terminal_state_is_final(story: list[tuple[Evidence, float]]) -> None:
    seen = Observation()
    for evidence, now in sorted(story, key=lambda chapter: chapter[1]):
        before, seen = seen, see(evidence, now, seen)
        assert seen.restarts >= before.restarts
        if before.terminal:
            assert seen == before


@given(evidences, evidences, st.floats(0, 2000), st.floats(0, 1e6))
def test_time_alone_changes_nothing_unless_a_silence_is_waited_out(
    first: Evidence, then: Evidence, now: float, later: float
) -> None:
    """The watcher relies on it: it looks again only at jobs of which something was heard, or that wait."""
    seen = see(then, now, see(first, now))
    if not seen.wants_accounting:
        assert see(then, now + later, seen) == seen


@given(evidences, st.floats(0, 2000))
def test_success_always_has_a_proof(evidence: Evidence, now: float) -> None:
    seen = see(evidence, now)
    if seen.state == "COMPLETED" and seen.terminal:
        own = evidence.status is not None and evidence.status.exit_code == 0
        queued = evidence.queue is not None and evidence.queue.row is not None
        said = queued or evidence.accounting is not None
        assert own or said


def test_hearing_the_same_twice_changes_nothing() -> None:
    evidence = Evidence(status=status(143, signals=("TERM",)), queue=gone(3))
    seen = see(evidence, now=5)
    assert see(replace(evidence), now=5, before=seen) == seen
