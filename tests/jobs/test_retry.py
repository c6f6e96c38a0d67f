"""Retry policies: what the next attempt asks for, and when there is none."""

from __future__ import annotations

import pytest

from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.outcome import JobOutcome
from dagster_slurm_components.jobs.reconcile import Evidence, Observation
from dagster_slurm_components.jobs.retry import NextAttempt, next_attempt
from dagster_slurm_components.jobs.status import parse_status
from dagster_slurm_components.spec.retry import Retry


def again(
    policy: dict[str, object],
    kind: str | None,
    *,
    options: dict[str, str] | None = None,
    retries: dict[str, int] | None = None,
    status: bytes = b"restart=0\n",
    success: bool = False,
) -> NextAttempt | None:
    ended = Ended(Observation(), Evidence(status=parse_status(status)))
    outcome = JobOutcome(success, "It ended.", kind=kind)
    model = Retry.model_validate(policy)
    return next_attempt(model, outcome, ended, options=options or {}, retries=retries or {})


def test_a_payloads_own_failure_and_a_success_are_never_answered() -> None:
    assert again({}, None) is None
    assert again({"timeout": {}}, "timeout", options={"time": "1"}, success=True) is None


def test_attempts_are_bounded() -> None:
    assert again({"lost": {"attempts": 2}}, "lost", retries={"lost": 1}) is not None
    assert again({"lost": {"attempts": 2}}, "lost", retries={"lost": 2}) is None
    assert again({"lost": {"attempts": 2}}, "lost", retries={"timeout": 2}) is not None


def test_what_costs_more_is_not_done_unasked() -> None:
    for kind in ("out_of_memory", "timeout", "lost"):
        assert again({}, kind, options={"mem": "1G", "time": "10"}) is None
    for kind in ("node_fail", "preempted"):
        assert again({}, kind) is not None


@pytest.mark.parametrize(
    ("options", "rule", "wanted"),
    [
        ({"mem": "1G"}, {}, {"mem": "2048M"}),
        ({"mem-per-cpu": "100"}, {"mem": "x1.5"}, {"mem-per-cpu": "150M"}),
        ({"mem": "1G"}, {"max_mem": "1536M"}, {"mem": "1536M"}),
        ({"mem": "1G"}, {"max_mem": "1G"}, None),
        ({"mem": "0"}, {}, None),
    ],
)
def test_more_memory_up_to_the_cap(
    options: dict[str, str], rule: dict[str, object], wanted: dict[str, str] | None
) -> None:
    found = again({"out_of_memory": rule}, "out_of_memory", options=options)
    assert (found.changed if found else None) == wanted


def test_memory_that_nobody_wrote_is_what_was_granted() -> None:
    status = b"restart=0\nmem_per_node_mb=300\n"
    found = again({"out_of_memory": {}}, "out_of_memory", status=status)
    assert found is not None
    assert found.changed == {"mem": "600M"}


@pytest.mark.parametrize(
    ("time", "rule", "wanted"),
    [
        ("00:10:00", {}, {"time": "00:15:00"}),
        ("1-00:00:00", {"time": "x2"}, {"time": "2-00:00:00"}),
        ("00:10:00", {"time": "x9", "max_time": "01:00:00"}, {"time": "01:00:00"}),
        ("01:00:00", {"max_time": "01:00:00"}, None),
        ("UNLIMITED", {}, None),
    ],
)
def test_more_time_up_to_the_cap(time: str, rule: dict[str, object], wanted: dict[str, str] | None) -> None:
    found = again({"timeout": rule}, "timeout", options={"time": time})
    assert (found.changed if found else None) == wanted


@pytest.mark.parametrize(
    ("nodes", "options", "wanted"),
    [
        ("node7", {}, {"exclude": "node7"}),
        ("node7", {"exclude": "node1"}, {"exclude": "node1,node7"}),
        ("node[1-2]", {}, {}),
        ("", {}, {}),
    ],
)
def test_a_bad_node_is_left_out(nodes: str, options: dict[str, str], wanted: dict[str, str]) -> None:
    found = again({}, "node_fail", options=options, status=f"restart=0\nnodes={nodes}\n".encode())
    assert found is not None
    assert found.changed == wanted
    assert found.delay == 30
