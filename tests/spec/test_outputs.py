"""Outputs as users write them: the short form, what is no path and no target, and templates."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dagster_slurm_components.jobs.collector.publish import target_of
from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.outputs import Output, output_problems, parts, variables, wanted
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.resolve import ResolvedScript, ScriptEntry, resolve_script
from dagster_slurm_components.spec.script import Script


def resolved(outputs: Any, **more: Any) -> ResolvedScript:
    layer = Layer("script", {"command": ["true"], "outputs": outputs, **more}, lambda path: None)
    profile = LoadedProfile("local", Profile(), (), Path())
    return resolve_script(ScriptEntry(layer, None, Path()), profile)


def test_the_short_form() -> None:
    found = Script.model_validate(
        {"command": ["x"], "outputs": {"a": "out/*.pt", "b": {"path": "w"}}}
    ).outputs
    assert found == {"a": Output(path="out/*.pt"), "b": Output(path="w")}
    assert [each["name"] for each in wanted(found, lambda name: None)] == ["a", "b"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("/abs", "is not below the payload's folder"),
        ("$HOME/x", "is not below the payload's folder"),
        ("~/x", "is not below the payload's folder"),
        ("a/../../b", "leads out of the payload's folder"),
        (".", "or is all of it"),
        ("a\nb", "one line without control characters"),
        ("", "got nothing"),
        (True, "expected text, got the boolean true"),
        ({"path": "a", "to": "rel/x"}, "is no absolute path"),
        ({"path": "a", "to": "~/x"}, "is no absolute path"),
        ({"path": "a", "to": "/"}, "are no target"),
        ({"path": "a", "to": "$D/../x"}, "are no target"),
        ({"path": "a", "to": "/x/$(id)"}, "begins no variable"),
        ({"path": "a", "tp": "/x"}, "unknown key `tp`"),
        ({"to": "/x"}, "path"),
    ],
)
def test_mistakes(output: Any, message: str) -> None:
    with pytest.raises(ValidationError) as error:
        Script.model_validate({"command": ["x"], "outputs": {"a": output}})
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-o", "a b", "x" * 65])
def test_names(name: str) -> None:
    with pytest.raises(ValidationError):
        Script.model_validate({"command": ["x"], "outputs": {name: "a"}})


def test_outputs_that_meet() -> None:
    made = {
        "Model": Output(path="a", to="/x/"),
        "model": Output(path="b"),
        "other": Output(path="c", to="/x", asset="mode"),
    }
    found = [*output_problems(made, ["model", "b"], lambda path: None)]
    assert [(each.path, each.message) for each in found] == [
        (("outputs", "model"), "the outputs `Model` and `model` differ by case alone"),
        (("outputs", "other", "to"), "`Model` is published to /x, too"),
        (("outputs", "other", "asset"), "`mode` is not an asset of this script"),
    ]


def test_templates_of_the_partition_are_filled_and_looked_at_again() -> None:
    script = resolved({"a": {"path": "out/{{ partition_key }}", "to": "$D/{{ partition_key }}"}, "b": "b"})
    filled = script.at_partition({"partition_key": "x"}, "").script.outputs
    assert filled["a"] == Output(path="out/x", to="$D/x")
    with pytest.raises(SpecError, match="leads out of the payload's folder"):
        script.at_partition({"partition_key": "../../x"}, "")


def test_a_key_of_a_partition_is_itself_in_a_target() -> None:
    outputs = {"a": {"path": "{{ partition_key }}", "to": "$D/{{ partition_key }}"}}
    outputs["b"] = {"path": "b", "to": "$D/{% if partition_key %}{{ partition_key }}{% endif %}$E"}
    filled = resolved(outputs).at_partition({"partition_key": r"x$HOME\$"}, "").script.outputs
    assert filled["a"] == Output(path=r"x$HOME\$", to=r"$D/x\$HOME\\\$")
    assert filled["b"].to == r"$D/x\$HOME\\\$$E"
    assert variables(filled["a"].to) == {"D"}
    assert variables(filled["b"].to) == {"D", "E"}


def test_a_profile_may_say_more_of_a_short_form() -> None:
    profiles = {"local": {"outputs": {"a": {"to": "/data/a", "optional": True}}}}
    found = resolved({"a": "x/a", "b": "b"}, profiles=profiles).script.outputs
    assert found == {"a": Output(path="x/a", to="/data/a", optional=True), "b": Output(path="b")}
    with pytest.raises(SpecError, match="leads out of the payload's folder"):
        resolved({"a": "x/../../a"}, profiles=profiles)


def test_a_profile_may_say_where_they_go() -> None:
    profiles = {"local": {"outputs": {"a": {"to": "/data/a"}}}}
    assert resolved({"a": {"path": "a"}}, profiles=profiles).script.outputs["a"].to == "/data/a"


@given(st.text())
def test_any_text_is_a_path_or_a_mistake(text: str) -> None:
    try:
        path = Script.model_validate({"command": ["x"], "outputs": {"a": text}}).outputs["a"].path
    except ValidationError:
        return
    assert path == text
    assert "\n" not in path


@settings(deadline=None)
@given(st.text(alphabet=["$", "{", "}", "\\", "A", "_", "1", "/", "é", " "], min_size=1))
def test_the_parts_of_a_target_are_all_of_it(text: str) -> None:
    try:
        stage = Script.model_validate({"command": ["x"], "stage": f"/{text}"}).stage
    except ValidationError:
        return
    assert stage is not None
    env = {"A": "a", "_": "b", "A1": "c"}

    def value(name: str) -> str:
        return env.setdefault(name, f"<{len(env)}>") if name else ""

    found = "".join(text + value(name) for text, name in parts(stage))
    # The collector reads a target by itself, on the host.
    assert os.path.normpath(found) == os.fsdecode(target_of(os.fsencode(stage), env))


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("tmp", "is no absolute path"),
        ("~/tmp", "is no absolute path"),
        ("$TMPDIR/../x", "are no target"),
        ("/", "are no target"),
        ("$1/x", "begins no variable"),
        ("$(mktemp -d)", "begins no variable"),
        (True, "expected text"),
    ],
)
def test_what_is_no_folder_of_a_node(stage: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Script.model_validate({"command": ["x"], "stage": stage})


def test_variables() -> None:
    assert variables("$A/${B_1}/$$C-x") == {"A", "B_1", "C"}
    assert variables(None) == set()
