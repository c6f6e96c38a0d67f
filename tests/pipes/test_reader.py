"""Messages: cut anywhere, malformed, repeated after a requeue; nothing is lost and nothing breaks the step."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.jobs.lines import Lines
from dagster_slurm_components.pipes.context import Selection
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader


class Handler:
    """Stands for Dagster's handler and keeps what it is given."""

    def __init__(self, refuse: str = "") -> None:
        self.messages: list[dict[str, Any]] = []
        self.refuse = refuse

    def handle_message(self, message: dict[str, Any]) -> None:
        if message["method"] == self.refuse:
            raise dg.DagsterInvariantViolationError("no such message")
        self.messages.append(message)


def message(method: str, **params: object) -> bytes:
    return json.dumps({"__dagster_pipes_version": "0.1", "method": method, "params": params}).encode() + b"\n"


STORY = (
    message("opened")
    + message("log", message="ünï ☃", level="info")
    + message("report_asset_materialization", asset_key="a")
    + message("closed")
)


def reading(handler: Handler, selection: Selection | None = None) -> RunDirectoryMessageReader:
    reader = RunDirectoryMessageReader("/run/messages.jsonl", selection)
    context = reader.read_messages(handler)  # type: ignore[arg-type]
    assert context.__enter__() == {"path": "/run/messages.jsonl"}
    return reader


@given(st.lists(st.integers(0, len(STORY)), max_size=12))
def test_bytes_may_be_cut_anywhere(cuts: list[int]) -> None:
    handler = Handler()
    reader = reading(handler)
    places = [0, *sorted(cuts), len(STORY)]
    for begin, end in pairwise(places):
        reader.feed(STORY[begin:end])
    reader.finish()
    assert [m["method"] for m in handler.messages] == [
        "opened",
        "log",
        "report_asset_materialization",
        "closed",
    ]
    assert reader.complaints == []


def test_logs_come_at_once_and_results_at_the_end() -> None:
    handler = Handler()
    reader = reading(handler)
    reader.feed(STORY)
    assert [m["method"] for m in handler.messages] == ["opened", "log"]
    reader.finish()
    assert len(handler.messages) == 4


def test_f33_a_requeued_start_reports_its_results_once() -> None:
    handler = Handler()
    reader = reading(handler)
    reader.feed(message("report_asset_materialization", asset_key="a") + b'{"half')
    reader.rewind()
    reader.feed(message("report_asset_materialization", asset_key="a"))
    reader.finish()
    assert [m["method"] for m in handler.messages] == ["report_asset_materialization"]
    assert reader.complaints == []


@pytest.mark.parametrize(
    "line",
    [b"not json", b"[]", b'"text"', b"{}", b'{"method": 7}', b"\xff\xfe", b'{"method": "log", "params": 3}'],
)
def test_f31_a_malformed_line_is_named_and_left_out(line: bytes) -> None:
    handler = Handler()
    reader = reading(handler)
    reader.feed(line + b"\n" + message("log", message="after", level="info"))
    reader.finish()
    assert [
        m["params"]["message"]
        for m in handler.messages
        if m["method"] == "log" and isinstance(m["params"], dict)
    ] == ["after"]


def test_f31_a_partial_last_line_is_named() -> None:
    reader = reading(Handler())
    reader.feed(b'{"method": "log", "par')
    reader.finish()
    assert len(reader.complaints) == 1


def test_a_message_that_dagster_refuses_does_not_end_the_step() -> None:
    reader = reading(Handler(refuse="log"))
    reader.feed(message("log", message="x", level="no such level"))
    assert "no such message" in reader.complaints[0]


def test_the_payloads_exception_is_kept() -> None:
    reader = reading(Handler())
    reader.feed(message("closed", exception={"message": "boom", "name": "ValueError", "stack": []}))
    assert reader.exception is not None
    assert reader.exception["name"] == "ValueError"


@given(st.integers(0, len(STORY)), st.integers(0, len(STORY)))
def test_log_lines_that_were_seen_are_not_told_again_but_results_are(seen: int, cut: int) -> None:
    handler = Handler()
    reader = reading(handler)
    reader.skip(seen)
    reader.feed(STORY[:cut])
    reader.feed(STORY[cut:])
    assert reader.position == len(STORY)
    reader.finish()
    methods = [each["method"] for each in handler.messages]
    told = seen <= STORY.index(message("log", message="ünï ☃", level="info"))
    assert methods == ["opened", *(["log"] if told else []), "report_asset_materialization", "closed"]


def test_a_job_that_began_anew_tells_all_of_it() -> None:
    handler = Handler()
    reader = reading(handler)
    reader.skip(len(STORY))
    reader.rewind()
    reader.feed(STORY)
    assert "log" in [each["method"] for each in handler.messages]


def test_of_two_starts_that_report_the_same_the_last_word_counts() -> None:
    """Slurm began the job anew elsewhere, while the first start went on, on a node that it did not hear of."""
    handler = Handler()
    reader = reading(handler)
    for start in (0, 1):
        reader.feed(message("report_asset_materialization", asset_key="a", metadata={"start": start}))
        reader.feed(message("report_asset_check", asset_key="a", check_name="c", passed=bool(start)))
    reader.feed(message("report_asset_materialization", asset_key="b"))
    reader.feed(message("report_custom_message", payload=1) * 2)
    reader.finish()
    found = [(m["method"], m["params"].get("asset_key")) for m in handler.messages]
    assert found == [
        ("report_custom_message", None),
        ("report_custom_message", None),
        ("report_asset_materialization", "a"),
        ("report_asset_check", "a"),
        ("report_asset_materialization", "b"),
    ]
    assert handler.messages[2]["params"]["metadata"]["start"]["raw_value"] == 1
    assert handler.messages[3]["params"]["passed"] is True
    assert reader.complaints == [
        "The payload reported asset `a` 2 times; the last one counts.",
        "The payload reported check `c` of asset `a` 2 times; the last one counts.",
    ]


A, B = dg.AssetKey(["x", "a"]), dg.AssetKey("b")
CHECK_OF_A, OTHER_OF_A = dg.AssetCheckKey(A, "c"), dg.AssetCheckKey(A, "other")
CHECK_OF_B = dg.AssetCheckKey(B, "c")


def reported(reader: RunDirectoryMessageReader, handler: Handler) -> list[tuple[str, str | None]]:
    for key in ("x/a", "b", "foreign"):
        reader.feed(message("report_asset_materialization", asset_key=key))
        for check in ("c", "other", "foreign"):
            reader.feed(message("report_asset_check", asset_key=key, check_name=check, passed=True))
    reader.finish()
    return [(m["params"]["asset_key"], m["params"].get("check_name")) for m in handler.messages]


def test_reports_that_the_step_does_not_declare_are_named_and_left_out() -> None:
    handler = Handler()
    selection = Selection(frozenset({A}), frozenset({CHECK_OF_A}), frozenset({B, OTHER_OF_A, CHECK_OF_B}))
    reader = reading(handler, selection)
    # `other` is not selected, but what it says is true of what is made here; Dagster lets it through too.
    assert reported(reader, handler) == [("x/a", None), ("x/a", "c"), ("x/a", "other")]
    assert reader.complaints == [
        f"The payload's report of {what} was left out: this step does not declare it."
        for what in (
            "check `foreign` of asset `x/a`",
            "check `other` of asset `b`",
            "check `foreign` of asset `b`",
            "asset `foreign`",
            "check `c` of asset `foreign`",
            "check `other` of asset `foreign`",
            "check `foreign` of asset `foreign`",
        )
    ]
    assert reader.notes == [
        "The payload's report of asset `b` was left out: it is not selected in this run.",
        "The payload's report of check `c` of asset `b` was left out: it is not selected in this run.",
    ]


def test_of_a_run_of_checks_alone_no_materialization_counts() -> None:
    handler = Handler()
    selection = Selection(frozenset(), frozenset({CHECK_OF_A}), frozenset({A, B, OTHER_OF_A, CHECK_OF_B}))
    reader = reading(handler, selection)
    assert reported(reader, handler) == [("x/a", "c")]


def test_complaints_are_bounded() -> None:
    reader = reading(Handler())
    for number in range(5_000):
        reader.feed(f"odd {number}\n".encode())
    reader.feed(b"odd 3\n" * 100)
    assert len(reader.complaints) == 21
    assert reader.complaints[-1] == "And 4980 more of this kind."


def test_a_line_that_is_too_long_is_named_and_left_out() -> None:
    handler = Handler()
    reader = reading(handler)
    reader._lines = Lines(longest=1000)  # the real limit is 64 MiB
    data = b"x" * 5000 + b"\n" + message("log", message="after", level="info")
    for begin in range(0, len(data), 100):
        reader.feed(data[begin : begin + 100])
    assert reader.position == len(data)
    assert [m["params"]["message"] for m in handler.messages] == ["after"]
    assert "5000 bytes" in reader.complaints[0]


def test_a_last_message_without_its_lines_end_counts() -> None:
    handler = Handler()
    reader = reading(handler)
    reader.feed(message("report_asset_materialization", asset_key="a").rstrip(b"\n"))
    reader.finish()
    assert [m["method"] for m in handler.messages] == ["report_asset_materialization"]
    assert reader.complaints == []


class Strict(Handler):
    """Takes no tables."""

    def handle_message(self, message: dict[str, Any]) -> None:
        values = (message["params"].get("metadata") or {}).values()
        if any(value["type"] == "table" for value in values):
            raise KeyError("schema")
        super().handle_message(message)


def test_a_table_that_dagster_refuses_does_not_cost_the_result() -> None:
    handler = Strict()
    reader = reading(handler)
    metadata = {"t": {"raw_value": {"rows": 1}, "type": "table"}, "n": {"raw_value": 2, "type": "int"}}
    reader.feed(message("report_asset_materialization", asset_key="a", metadata=metadata))
    reader.finish()
    (found,) = handler.messages
    assert found["params"]["metadata"]["n"] == {"raw_value": 2, "type": "int"}
    assert found["params"]["metadata"]["t"] == {"raw_value": {"rows": 1}, "type": "__infer__"}
    assert "schema" in reader.complaints[0]
    assert reader.notes == []


def test_an_error_of_dagsters_storage_is_no_complaint() -> None:
    class Broken(Handler):
        def handle_message(self, message: dict[str, Any]) -> None:
            raise OSError("the database is gone")

    reader = reading(Broken())
    with pytest.raises(OSError, match="database"):
        reader.feed(message("log", message="x", level="info"))


def test_of_several_that_close_the_one_that_failed_is_told_last() -> None:
    handler = Handler()
    reader = reading(handler)
    reader.feed(message("closed", exception={"message": "boom"}) + message("closed"))
    reader.feed(message("report_asset_materialization", asset_key="a"))
    assert reader.exception is not None
    reader.finish()
    assert [m["method"] for m in handler.messages] == ["report_asset_materialization", "closed"]
