"""Inputs as users write them: the short form, what is no source, templates, and what follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dagster_slurm_components.spec.inputs import FetchOn, Input, input_problems
from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.resolve import ResolvedScript, ScriptEntry, resolve_script
from dagster_slurm_components.spec.rules import script_problems
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.templates import INPUTS, Values


def resolved(inputs: Any, *above: dict[str, Any], **more: Any) -> ResolvedScript:
    layers = [{"command": ["true"], "inputs": inputs, **more}, *above]
    script, *others = [Layer("script", each, lambda path: None) for each in layers]
    profile = LoadedProfile("local", Profile(), (), Path())
    return resolve_script(
        ScriptEntry(others[0] if others else script, script if others else None, Path()), profile
    )


def test_forms() -> None:
    script = Script.model_validate(
        {
            "command": ["x"],
            "inputs": {
                "a": "asset:data/images",
                "b": "file:../x y.csv",
                "c": {
                    "source": "https://example.org/zoo.tar",
                    "unpack": True,
                    "fetch_on": {"partition": "dm"},
                },
                "d": {"source": "s3://bucket/x", "max": "2G"},
            },
        }
    )
    assert script.inputs["a"].asset == "data/images"
    assert script.inputs["b"].file == "../x y.csv"
    assert script.inputs["c"].fetch_on == FetchOn(partition="dm")
    assert script.inputs["d"].most == 2 * 2**30
    assert (script.inputs["d"].asset, script.inputs["d"].file) == (None, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("data/x.csv", "neither an asset, a file nor a URL"),
        ("asset:", "neither an asset"),
        ("asset:a b", "neither an asset"),
        ("file:", "neither an asset"),
        ("https:example.org", "neither an asset"),
        (True, "expected text, got the boolean true"),
        ({"source": "https://x/y", "sha256": "12"}, "is not a SHA-256"),
        ({"source": "https://x/y", "fetch_on": "node"}, "'login' or 'here'"),
        ({"source": "https://x/y", "fetch_on": {"where": "here", "partition": "a"}}, "exclude each other"),
        ({"source": "https://x/y", "fetch_on": {"qos": "a"}}, "`where` or `partition` is missing"),
        ({"source": "file:x", "unpak": True}, "unknown key `unpak`"),
        ({"unpack": True}, "source"),
    ],
)
def test_mistakes(given: Any, message: str) -> None:
    with pytest.raises(ValidationError) as error:
        Script.model_validate({"command": ["x"], "inputs": {"a": given}})
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["", "a/b", "a.b", "a-b", "1a", "a b", "x" * 65])
def test_names_are_those_of_variables(name: str) -> None:
    with pytest.raises(ValidationError):
        Script.model_validate({"command": ["x"], "inputs": {name: "file:a"}})


def test_what_does_not_fit() -> None:
    given = {
        "Table": Input(source="file:a", output="x", sha256="0" * 64),
        "table": Input(source="asset:b", unpack=True, fetch_on=FetchOn(where="here")),
        "late": Input(source="{{ partition_key }}", sha256="0" * 64),
    }
    found = [*input_problems(given, lambda path: None)]
    assert [(each.path, each.message) for each in found] == [
        (("inputs", "Table", "output"), "`output` is said of an asset, and `file:a` is none"),
        (("inputs", "Table", "sha256"), "`sha256` is said of a URL, and `file:a` is none"),
        (("inputs", "table"), "the inputs `Table` and `table` differ by case alone"),
        (("inputs", "table", "unpack"), "`unpack` is said of a file or a URL, and `asset:b` is none"),
        (("inputs", "table", "fetch_on"), "`fetch_on` is said of a URL, and `asset:b` is none"),
    ]


def test_assets_are_made_from_the_assets_that_are_read() -> None:
    script = resolved(
        {"x": "asset:a", "y": {"source": "asset:b"}, "z": "file:c"},
        assets=[{"key": "m", "deps": ["b", "d"]}, {"key": "n"}],
    ).script
    assert [[dep.asset for dep in asset.deps] for asset in script.assets] == [["b", "d", "a"], ["a", "b"]]


def test_an_asset_of_the_script_itself() -> None:
    own = {"key": "m", "deps": []}
    earlier = {
        "asset": "m",
        "partition_mapping": {"type": "time_window", "start_offset": -1, "end_offset": -1},
    }
    days = {"type": "daily", "start_date": "2026-01-01"}
    for deps, messages in (([], ["`m` is made by this script itself"]), ([earlier], [])):
        script = resolved({"x": "asset:m"}, assets=[{**own, "deps": deps, "partitions_def": days}]).script
        assert [each.message for each in script_problems(script, lambda path: None)] == messages


def test_templates_wait_for_the_partition_then_for_the_inputs() -> None:
    script = resolved(
        {"day": "https://example.org/{{ partition_key }}.tar", "table": "file:x"},
        args=[
            "{{ inputs.table }}",
            "{{ partition_key }}:{{ inputs.day }}",
            "{{ inputs['day'] }}/{{ partition_key }}",
        ],
        env={"X": "{{ inputs.get('none', 'no') }}"},
    )
    assert [each.message for each in script_problems(script.script, lambda path: None)] == [
        "the script makes no asset"
    ]
    names = {"partition_key": "2026-02-03"}
    at_key = script.at_partition(names, "")
    assert at_key.script.inputs["day"].source == "https://example.org/2026-02-03.tar"
    assert at_key.script.args == [
        "{{ inputs.table }}",
        "2026-02-03:{{ inputs.day }}",
        "{{ inputs['day'] }}/2026-02-03",
    ]
    filled = at_key.at_partition({**names, INPUTS: Values(INPUTS, {"table": "/t", "day": "/d"})}, "").script
    assert filled.args == ["/t", "2026-02-03:/d", "/d/2026-02-03"]
    assert filled.env == {"X": "no"}


def test_an_input_that_a_template_asks_for_has_to_be_there() -> None:
    script = resolved({"table": "file:x"}, args=["{{ inputs.tabel }}"], assets=[{"key": "a"}]).script
    (problem,) = script_problems(script, lambda path: None)
    assert (problem.path, problem.message) == (("args", 0), "the script has no input `tabel`")
    assert problem.hint == "did you mean `table`?"


def test_a_source_that_a_template_gave_is_looked_at() -> None:
    script = resolved({"x": "{{ partition_key }}"})
    with pytest.raises(SpecError, match="neither an asset, a file nor a URL"):
        script.at_partition({"partition_key": "a b"}, "")


def test_an_override_extends_the_short_form() -> None:
    script = resolved({"x": "https://example.org/a"}, {"inputs": {"x": {"fetch_on": "here"}}}).script
    assert script.inputs["x"] == Input(source="https://example.org/a", fetch_on=FetchOn(where="here"))
