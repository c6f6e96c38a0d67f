"""Lines of the messages file: whatever a payload writes, only what Dagster takes goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.pipes.message_metadata import metadata_from, without_complex
from dagster_slurm_components.pipes.messages import Complaint, Message, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
METHODS = (
    "opened",
    "closed",
    "log",
    "log_external_stream",
    "report_custom_message",
    "report_asset_materialization",
    "report_asset_check",
)
NAMES = ("asset_key", "check_name", "passed", "metadata", "data_version", "severity", "message", "level")
TYPES = ("text", "float", "int", "bool", "json", "null", "url", "path", "md", "timestamp", "asset", "odd")


def line(method: object, params: object) -> bytes:
    return json.dumps({"__dagster_pipes_version": "0.1", "method": method, "params": params}).encode()


def message(method: str, **params: object) -> Message:
    found = parse(line(method, params))
    assert isinstance(found, Message), found
    return found


@pytest.mark.parametrize(
    "text",
    [
        b"not json",
        b"[" * 100_000,
        b'{"method": "log", "params": ' + b"[" * 100_000,
        b"[]",
        b'"text"',
        b"null",
        b"{}",
        b"\xff\xfe",
        b"\x00" * 4096,
        b'{"method": 7}',
        b'{"method": []}',
        b'{"method": {}}',
        b'{"method": null, "params": {}}',
        b'{"method": "no_such_method", "params": {}}',
        b'{"method": "closed", "params": "exception"}',
        b'{"method": "closed", "params": ["exception"]}',
        b'{"method": "closed", "params": 5}',
        b'{"method": "log", "params": 3}',
        b'{"method": "log", "params": {"level": "INFO"}}',
        b'{"method": "log", "params": {"message": ["x"]}}',
        b'{"method": "log_external_stream", "params": {"stream": "stdin", "text": "x"}}',
        b'{"method": "report_custom_message", "params": {}}',
        b'{"method": "report_asset_materialization"}',
        b'{"method": "report_asset_materialization", "params": {"asset_key": ["a"]}}',
        b'{"method": "report_asset_materialization", "params": {"asset_key": ""}}',
        b'{"method": "report_asset_check", "params": ["a", "c"]}',
        b'{"method": "report_asset_check", "params": {"asset_key": "a", "passed": true}}',
        b'{"method": "report_asset_check", "params": {"asset_key": "a", "check_name": "c", "passed": 1}}',
        b'{"method": "report_asset_check", "params": {"asset_key": "a", "check_name": "c", "passed": "true"}}',
    ],
    ids=lambda text: text[:60].decode("utf-8", "replace"),
)
def test_h4_an_odd_line_is_a_complaint(text: bytes) -> None:
    found = parse(text)
    assert isinstance(found, Complaint)
    assert len(found.text) < 500


@given(st.sampled_from(METHODS), st.dictionaries(st.sampled_from(NAMES), JSON) | JSON)
def test_no_line_raises(method: str, params: object) -> None:
    assert isinstance(parse(line(method, params)), Message | Complaint)


@given(st.binary())
def test_no_bytes_raise(text: bytes) -> None:
    assert isinstance(parse(text), Message | Complaint)


class Context:
    """As much of Dagster's context as its handler needs for results."""

    log = SimpleNamespace(warning=print, info=print)


class Silent(dg.PipesMessageReader):
    """A reader that reads nothing."""

    def read_messages(self, handler: object) -> Any:
        raise NotImplementedError

    def no_messages_debug_text(self) -> str:
        return ""


def taken_by_dagster(found: Message) -> Any:
    """Give a message to Dagster's own handler; return the result that it makes."""
    handler = dg.PipesMessageHandler(Context(), Silent())  # type: ignore[arg-type]
    handler.handle_message({"method": found.method, "params": found.params})  # type: ignore[typeddict-item]
    (result,) = handler.get_reported_results()
    return result


VALUES = JSON | st.fixed_dictionaries({"raw_value": JSON, "type": st.sampled_from(TYPES)})


@given(st.dictionaries(st.text(), VALUES, max_size=4) | JSON, JSON)
def test_dagster_takes_all_metadata_and_its_ui_can_show_it(metadata: Any, version: Any) -> None:
    params = {"asset_key": "a", "metadata": metadata, "data_version": version}
    result = taken_by_dagster(message("report_asset_materialization", **params))
    for value in result.metadata.values():
        json.dumps(value.value, allow_nan=False).encode("utf-8")


@pytest.mark.parametrize(("number", "shown"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_numbers_that_are_none_are_shown_as_text(number: float, shown: str) -> None:
    table = {"records": [{"loss": 1.5}, {"loss": number}], "schema": [{"name": "loss", "type": "float"}]}
    found = message(
        "report_asset_materialization",
        asset_key="a",
        metadata={
            "typed": {"raw_value": number, "type": "float"},
            "inferred": {"raw_value": number, "type": "__infer__"},
            "curve": {"raw_value": {"loss": [1.5, number]}, "type": "json"},
            "table": {"raw_value": table, "type": "table"},
            "fine": {"raw_value": 0.5, "type": "float"},
        },
    )
    result = taken_by_dagster(found)
    assert result.metadata["typed"] == dg.MetadataValue.text(shown)
    assert result.metadata["inferred"] == dg.MetadataValue.text(shown)
    assert result.metadata["curve"].value == {"loss": [1.5, shown]}
    assert [record.data for record in result.metadata["table"].records] == [{"loss": 1.5}, {"loss": shown}]
    assert result.metadata["fine"] == dg.MetadataValue.float(0.5)
    (note,) = found.notes
    assert "`typed`, `inferred`, `curve`, `table`" in note
    assert "`fine`" not in note


def test_bare_values_are_as_good_as_typed_ones() -> None:
    found = message("report_asset_materialization", asset_key="a", metadata={"rows": 3, "who": {"name": "x"}})
    result = taken_by_dagster(found)
    assert result.metadata == {
        "rows": dg.MetadataValue.int(3),
        "who": dg.MetadataValue.json({"name": "x"}),
    }
    assert found.notes == ()


@pytest.mark.parametrize(
    ("raw", "kind", "expected"),
    [
        (3, "float", dg.MetadataValue.float(3.0)),
        ("3", "int", dg.MetadataValue.text("3")),
        (True, "int", dg.MetadataValue.bool(True)),
        (5, "json", dg.MetadataValue.int(5)),
        ([1], "json", dg.MetadataValue.json([1])),
        (7, "text", dg.MetadataValue.int(7)),
        ("x", "no such type", dg.MetadataValue.text("x")),
        ("a\ud800b", "text", dg.MetadataValue.text("a?b")),
        (10**400, "float", dg.MetadataValue.int(10**400)),
    ],
)
def test_a_value_that_is_not_what_it_is_said_to_be_is_kept(raw: object, kind: str, expected: object) -> None:
    metadata = {"v": {"raw_value": raw, "type": kind}}
    found = message("report_asset_materialization", asset_key="a", metadata=metadata)
    assert taken_by_dagster(found).metadata["v"] == expected


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


def test_h4_deep_metadata_is_cut_and_told() -> None:
    metadata = {"tree": {"raw_value": nested(400), "type": "json"}}
    found = message("report_asset_materialization", asset_key="a", metadata=metadata)
    assert "..." in json.dumps(taken_by_dagster(found).metadata["tree"].value)
    assert "nested deeper" in found.notes[0]


NAMES_OF_DAGSTERS = ("__class__", "__enum__", "__set__", "__frozenset__", "__mapping_items__")


@pytest.mark.parametrize("name", NAMES_OF_DAGSTERS)
def test_names_that_dagster_keeps_for_itself_can_be_read_again(name: str) -> None:
    metadata = {
        "json": {"raw_value": [{"in": {name: 3, "b": 1}}], "type": "json"},
        name: {"raw_value": 4, "type": "int"},
    }
    found = message("report_asset_materialization", asset_key="a", metadata=metadata)
    event = dg.AssetMaterialization("a", metadata=taken_by_dagster(found).metadata)
    again = dg.deserialize_value(dg.serialize_value(event), dg.AssetMaterialization)
    assert again.metadata["json"].value == [{"in": {f"_{name}": 3, "b": 1}}]
    assert again.metadata[f"_{name}"].value == 4
    assert f"shown as `_{name}`" in found.notes[0]


def test_what_a_message_leaves_out_is_filled_in() -> None:
    result = taken_by_dagster(message("report_asset_materialization", asset_key="a", colour="red"))
    assert (result.metadata, result.data_version) == ({}, None)
    check = taken_by_dagster(message("report_asset_check", asset_key="a", check_name="c", passed=False))
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)


@pytest.mark.parametrize(
    ("severity", "expected", "notes"), [("warn", "WARN", 0), ("fatal", "ERROR", 1), (3, "ERROR", 1)]
)
def test_severities(severity: object, expected: str, notes: int) -> None:
    found = message("report_asset_check", asset_key="a", check_name="c", passed=True, severity=severity)
    assert (found.params["severity"], len(found.notes)) == (expected, notes)


@pytest.mark.parametrize("level", ["Level 25", "NOTICE", 30, None, ["x"]])
def test_a_log_line_of_an_unknown_level_is_shown(level: object) -> None:
    assert message("log", message="x", level=level).params == {"message": "x", "level": "INFO"}
    assert message("log", message="x", level="warn").params["level"] == "WARN"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("boom", "boom"),
        ({"message": "boom"}, "boom"),
        (["boom"], '["boom"]'),
        (7, "7"),
        ({"message": "boom", "stack": "one line", "cause": {"stack": 3}}, "boom"),
    ],
)
def test_h4_exceptions_of_any_shape(raw: object, text: str) -> None:
    exception = message("closed", exception=raw).params["exception"]
    assert exception["message"] == text
    assert set(exception) == {"message", "stack", "name", "cause", "context"}
    assert all(isinstance(each, str) for each in exception["stack"])


def test_a_long_chain_of_causes_is_cut() -> None:
    raw: dict[str, Any] = {"message": "first"}
    for number in range(100):
        raw = {"message": str(number), "cause": raw}
    exception, length = message("closed", exception=raw).params["exception"], 0
    while exception:
        exception, length = exception["cause"], length + 1
    assert length == 21


def test_no_exception() -> None:
    assert message("closed").params == {}
    assert message("closed", exception=None).params == {}
    assert parse(b'{"method": "closed"}') == Message("closed", {})


@pytest.mark.parametrize("make", [lambda: metadata_from(None, "asset `a`"), lambda: metadata_from({}, "x")])
def test_no_metadata(make: Callable[[], tuple[Any, tuple[str, ...]]]) -> None:
    found, notes = make()
    assert not found
    assert notes == ()


def test_tables_can_be_shown_as_json() -> None:
    metadata = {"t": {"raw_value": {"records": 3}, "type": "table"}, "n": {"raw_value": 1, "type": "int"}}
    assert without_complex(metadata) == {
        "t": {"raw_value": {"records": 3}, "type": "__infer__"},
        "n": {"raw_value": 1, "type": "int"},
    }
