"""Whatever a payload writes: nothing is raised, and what is right in it arrives; with Dagster's own parts."""

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_slurm_components.pipes.context import Selection
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader

A, CHECK = dg.AssetKey("a"), dg.AssetCheckKey(dg.AssetKey("a"), "c")
NUMBER = {"n": {"raw_value": 7, "type": "int"}}
EXCEPTION = {"message": "boom", "stack": ["line"], "name": "E", "cause": None, "context": None}
TABLE = {"records": [{"x": 1}], "schema": [{"name": "x", "type": "int"}]}
VALID: dict[str, dict[str, Any]] = {
    "opened": {"extras": {}},
    "closed": {"exception": EXCEPTION},
    "log": {"message": "hello", "level": "INFO"},
    "log_external_stream": {"stream": "stdout", "text": "hello", "extras": {}},
    "report_custom_message": {"payload": [1]},
    "report_asset_materialization": {
        "asset_key": "a",
        "metadata": {**NUMBER, "t": {"raw_value": TABLE, "type": "table"}},
        "data_version": "v",
    },
    "report_asset_check": {
        "asset_key": "a",
        "check_name": "c",
        "passed": True,
        "severity": "WARN",
        "metadata": NUMBER,
    },
}
TEXT = st.text() | st.sampled_from(["", "a", "c", "\ud800", "a\0b", "x" * 70_000, "__class__", "__enum__"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just(10**4200),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
HUGE = [
    b"[" * 200_000,
    b'{"method": "log", "params": ' + b"[" * 200_000,
    b'{"method": "report_custom_message", "params": {"payload": ' + b"9" * 5000 + b"}}",
    b'{"method": "closed", "params": NaN}',
    b"\x00" * 5000,
]


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each value in a message."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for key, item in inner for each in paths(item, (*path, key)))]


def at(value: Any, path: tuple[Any, ...], change: Any) -> Any:
    """Return a copy of a value with something else at a path."""
    if not path:
        return change
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = at(value[path[0]], path[1:], change)
    return copy


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A message of which one part is any JSON."""
    method = draw(st.sampled_from(sorted(VALID)))
    whole = {"__dagster_pipes_version": "0.1", "method": method, "params": VALID[method]}
    return json.dumps(at(whole, draw(st.sampled_from(paths(whole))), draw(JSON))).encode()


def line(method: str, **params: Any) -> bytes:
    return json.dumps({"__dagster_pipes_version": "0.1", "method": method, "params": params}).encode() + b"\n"


LINES = st.lists(
    mutated() | JSON.map(lambda value: json.dumps(value).encode()) | st.binary() | st.sampled_from(HUGE),
    max_size=4,
)
RIGHT = (
    line("log", message="the last", level="INFO")
    + line("report_custom_message", payload="right")
    + line("report_asset_materialization", asset_key="a", metadata=NUMBER, data_version="right")
    + line("report_asset_check", asset_key="a", check_name="c", passed=True, severity="WARN", metadata=NUMBER)
)


def read(context: dg.OpExecutionContext, lines: list[bytes], rest: bytes) -> dg.PipesMessageHandler:
    selection = Selection(frozenset({A}), frozenset({CHECK}), frozenset())
    reader = RunDirectoryMessageReader("/run/messages.jsonl", selection)
    handler = dg.PipesMessageHandler(context, reader)
    with handler.handle_messages():
        for each in lines:
            reader.feed(each + b"\n")
        reader.feed(RIGHT + rest)
        reader.finish()
    assert all(len(text) < 2000 for text in [*reader.complaints, *reader.notes])
    return handler


def stored(result: dg.PipesExecutionResult) -> Mapping[str, Any]:
    """Return the metadata of a result as Dagster reads them again."""
    assert isinstance(result, dg.MaterializeResult | dg.AssetCheckResult)
    version = getattr(result, "data_version", None)
    event = dg.AssetMaterialization(
        "a", metadata=result.metadata, tags={"dagster/data_version": version.value} if version else None
    )
    again = dg.deserialize_value(dg.serialize_value(event), dg.AssetMaterialization)
    for name, value in again.metadata.items():
        # What GraphQL answers with holds no number that JSON has no word for, and is sent as UTF-8.
        json.dumps([name, value.value], allow_nan=False, default=str).encode()
    return {name: value.value for name, value in again.metadata.items()}


def test_nothing_is_raised_and_what_is_right_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []

    @dg.op
    def step(context: dg.OpExecutionContext) -> None:
        @settings(deadline=None, max_examples=80, derandomize=True)
        @given(lines=LINES, rest=st.binary(max_size=20))
        def any_lines(lines: list[bytes], rest: bytes) -> None:
            handler = read(context, lines, rest.replace(b"\n", b""))
            assert handler.get_custom_messages()[-1] == "right"
            found = {type(each): stored(each) for each in handler.get_reported_results()}
            assert {kind: each["n"] for kind, each in found.items()} == {
                dg.MaterializeResult: 7,
                dg.AssetCheckResult: 7,
            }
            told.append("the last")

        any_lines()

    @dg.job
    def job() -> None:
        step()

    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance)
        logged = [each.user_message for each in instance.all_logs(result.run_id)]
    assert logged.count("the last") >= len(told) > 0
    capsys.readouterr()
