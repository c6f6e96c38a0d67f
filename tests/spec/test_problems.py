"""One problem per mistake, with place, reason and the nearest right word."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dagster_slurm_components.spec.launchers import LAUNCHERS, BashLauncher
from dagster_slurm_components.spec.place import Position
from dagster_slurm_components.spec.problems import (
    Problem,
    SpecError,
    did_you_mean,
    in_order,
    nearest,
    problems_of,
)
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.source import load_documents, parse_documents


def problems(text: str) -> list[tuple[int, int, str, str | None]]:
    (document,) = parse_documents(text, "a.yaml")
    with pytest.raises(ValidationError) as caught:
        Script.model_validate(document.data)
    return [
        (p.position.line, p.position.column, p.message, p.hint)
        for p in problems_of(caught.value, document.position)
    ]


def test_unknown_key_of_a_nested_mapping_is_where_its_key_is():
    text = "payload: a\nlaunchr:\n  type: bash\nresources:\n  nods: 2\n"
    assert problems(text) == [
        (2, 1, "unknown key `launchr`", "did you mean `launcher`?"),
        (5, 3, "unknown key `nods`", "did you mean `nodes`?"),
    ]


def test_an_unknown_type_is_one_error():
    assert problems("payload: a\nlauncher: {type: bsh, interpreter: 5, more: 6}\n") == [
        (2, 18, "unknown launcher type `bsh`", "did you mean `bash`?")
    ]


def test_a_type_without_braces_says_how_to_write_it():
    ((_, _, message, hint),) = problems("payload: a\nlauncher: bash\n")
    assert message == "expected a mapping with a `type` for the launcher"
    assert hint == "write `{type: bash}`"


def test_errors_speak_of_the_chosen_type_only():
    assert problems("payload: a\nenvironment: {type: path, load: [x]}\n") == [
        (2, 14, "`path` is missing", None),
        (2, 27, "unknown key `load`", "expected one of `before_modules`, `modules`, `path`, `setup`, `type`"),
    ]


def test_payload_or_command():
    assert problems("args: [x]") == [(1, 1, "`payload` or `command` is missing", None)]
    assert problems("payload: a\ncommand: [b]\n") == [
        (2, 10, "`command` and `payload` exclude each other", "keep one of them")
    ]


def test_overrides_are_parts_of_scripts():
    text = """\
payload: a
profiles:
  local: {resources: {nodes: 1}, launcher: {interpreter: [x]}}
  production:
    assets: []
    resorces: {}
    resources: {nodes: x}
    launcher: {interpretr: [x]}
"""
    assert [(line, message) for line, _, message, _ in problems(text)] == [
        (5, "`assets` can't be set in a profile's override"),
        (6, "unknown key `resorces`"),
        (7, "'x' is not a number of nodes"),
        (8, "unknown key `interpretr`"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("args: --epochs", "expected a list, got the text '--epochs'"),
        ("args: [[a]]", "expected text, got a list"),
        ("env: [A]", "expected a mapping, got a list"),
        ("resources: 5", "expected a mapping, got the number 5"),
        ("assets: [x]", "expected a mapping, got the text 'x'"),
        ("assets: [{key: []}]", "expected an asset key: text, or a list of texts"),
        ("assets: [{key: a, kinds: null}]", "expected a list, got nothing"),
        ("assets: [{key: a, tags: {x: [1]}}]", "expected text, a number, true or false, got a list"),
        ("assets: [{key: a, automation_condition: eager}]", "expected a template, got the text 'eager'"),
        ("assets: [{key: a, partitions_def: {type: dayly}}]", "unknown partitions definition type `dayly`"),
        ("assets: [{key: a, partitions_def: {type: daily}}]", "`start_date` is missing"),
        ("assets: [{key: a, partitions_def: {}}]", "the partitions definition has no `type`"),
        ("op: {retry_policy: {delay: soon}}", "expected a number, got the text 'soon'"),
        (
            "op: {retry_policy: {delay: -1}}",
            "expected a number greater than or equal to 0, got the number -1",
        ),
        (
            "op: {backfill_policy: {type: single_run, max_partitions_per_run: 2}}",
            "unknown key `max_partitions_per_run`",
        ),
        ("can_subset: sometimes", "expected true or false, got the text 'sometimes'"),
        ("payload2: x", "unknown key `payload2`"),
        ("command: []", "expected at least 1, got 0"),
    ],
)
def test_words(line, message):
    data = line if line.startswith("command") else f"payload: a\n{line}"
    found = problems(data)
    assert [problem[2] for problem in found] == [message], found


def test_nearest_words():
    assert nearest("torchrn", ["bash", "srun", "torchrun"]) == "torchrun"
    assert nearest("cpus-per-task", ["cpus_per_task"]) == "cpus_per_task"
    assert nearest("Nodes", ["nodes", "node"]) == "nodes"
    assert nearest("xyz", ["bash"]) is None
    assert did_you_mean("xyz", ["b", "a"]) == "expected one of `a`, `b`"
    assert did_you_mean("xyz", []) is None


def test_text_of_an_error_shows_the_line_and_a_caret(tmp_path):
    file = tmp_path / "ü b.yaml"
    file.write_text("payload: a\nlauncher: {type: bsh}\n")
    (document,) = load_documents(file)
    with pytest.raises(ValidationError) as caught:
        Script.model_validate(document.data)
    error = SpecError(problems_of(caught.value, document.position))
    assert str(error).splitlines() == [
        f"{file}:2:18: unknown launcher type `bsh`",
        "    launcher: {type: bsh}",
        "                     ^",
        "    did you mean `bash`?",
    ]


def test_problems_come_in_the_files_order():
    places = [Position("b", 1, 1), None, Position("a", 10, 1), Position("a", 9, 5)]
    ordered = in_order([Problem("m", place) for place in places] + [Problem("m", places[0])])
    assert [problem.position for problem in ordered] == [None, places[3], places[2], places[0]]


def test_models_given_from_python():
    script = Script(payload="a.py", launcher=BashLauncher(interpreter=["Rscript"]))
    assert script.launcher.interpreter == ["Rscript"]
    assert script.explicit() == {
        "payload": "a.py",
        "launcher": {"type": "bash", "interpreter": ["Rscript"]},
    }
    with pytest.raises(ValidationError):
        Script(payload="a.py", launchr=BashLauncher())


def test_registry_is_a_mapping_of_types():
    assert LAUNCHERS["bash"] is BashLauncher
    assert "bash" in list(LAUNCHERS)
    assert "interpreter" in LAUNCHERS.fields()
    with pytest.raises(KeyError):
        LAUNCHERS["nope"]
