"""YAML with positions, and the traps of YAML 1.1."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.spec.place import KEY, Position
from dagster_slurm_components.spec.problems import Problem, SpecError
from dagster_slurm_components.spec.source import SpelledInt, load_documents, parse_documents


def only(text: str):
    (document,) = parse_documents(text, "a.yaml")
    return document


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        parse_documents(text, "a.yaml")
    return caught.value.problems


def test_position_of_values_keys_and_what_is_not_there():
    document = only("a:\n  b: [1, {c: 2}]\nd: x\n")
    assert document.position(("a", "b", 1, "c")) == Position("a.yaml", 2, 14)
    assert document.position(("a", "b", KEY)) == Position("a.yaml", 2, 3)
    assert document.position(("a", "b", KEY)) == Position("a.yaml", 2, 3)
    assert document.position(("a", "nope", "deeper")) == Position("a.yaml", 1, 1)
    assert document.position() == Position("a.yaml", 1, 1)


def test_child_keeps_file_and_places():
    child = only("a:\n  b: [1, {c: 2}]\n").child(("a", "b", 1))
    assert child.data == {"c": 2}
    assert child.position(("c",)) == Position("a.yaml", 2, 14)
    with pytest.raises(KeyError):
        child.child(("x",))


def test_several_documents_keep_their_numbers():
    documents = parse_documents("---\na: 1\n---\n# nothing\n---\nb: 2\n", "a.yaml")
    assert [(document.index, document.data) for document in documents] == [(0, {"a": 1}), (2, {"b": 2})]
    assert documents[1].position(("b",)).line == 6


@pytest.mark.parametrize("text", ["", "\ufeff", "# only a comment\n", "---\n", "---\n---\n"])
def test_empty_file(text):
    assert [p.message for p in problems(text)] == ["the file is empty"]


def test_byte_order_mark(tmp_path):
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert load_documents(file)[0].position(("a",)) == Position(str(file), 1, 4)


def test_files_that_are_no_text(tmp_path):
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"a: 1\nb: \xe4\n")
    with pytest.raises(SpecError, match="not UTF-8") as caught:
        load_documents(file)
    assert caught.value.problems[0].position.line == 2
    with pytest.raises(SpecError, match="can't be read"):
        load_documents(tmp_path / "missing.yaml")
    with pytest.raises(SpecError, match="can't be read"):
        load_documents(tmp_path)


def test_duplicate_keys_name_both_lines():
    (problem,) = problems("a: 1\nb: 2\na: 3\n")
    assert str(problem.position) == "a.yaml:3:1"
    assert problem.message == "`a` is written twice; the first is in line 1"


def test_all_duplicates_are_told_at_once():
    assert len(problems("a: {x: 1, x: 2}\nb: [{y: 1, y: 2}]\n---\nc: 1\nc: 2\n")) == 3


def test_tab_says_use_spaces():
    (problem,) = problems("a:\n\tb: 1\n")
    assert problem.position.line == 2
    assert "spaces" in problem.hint


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("off", False),
        ("1e3", "1e3"),
        ("2025-01-31", "2025-01-31"),
        ("2025-01-31 10:00:00", "2025-01-31 10:00:00"),
        ("0x1F", 31),
        ("-0x1F", -31),
        ("1.5", 1.5),
        ("1:30.5", 90.5),
        ("-.inf", float("-inf")),
        ("~", None),
        ("'12:00:00'", "12:00:00"),
        ("=", "="),
        ("!!str 5", "5"),
    ],
)
def test_scalars(text, value):
    assert only(f"a: {text}").data == {"a": value}


@pytest.mark.parametrize(
    ("text", "value"),
    [("12:00:00", 43200), ("1:30", 90), ("010", 8), ("-010", -8), ("1_000", 1000), ("0b11", 3)],
)
def test_spellings_that_parsers_read_differently_are_marked(text, value):
    number = only(f"a: {text}").data["a"]
    assert number == value
    assert isinstance(number, SpelledInt)
    assert number.text == text


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['true']", "!!binary aGk=", "!custom x", "!x {}"]
)
def test_tags_are_refused(tag):
    assert "not allowed" in problems(f"a: {tag}")[0].message


@pytest.mark.parametrize("text", ["a: !!int x", "a: !!bool x", "a: !!float x", "a: " + "9" * 5000])
def test_values_that_are_not_what_they_say(text):
    assert "is not a valid" in problems(text)[0].message


def test_anchors_and_merge_keys_point_to_where_a_value_was_written():
    document = only("base: &b\n  x: 1\n  y: 2\nuse:\n  <<: *b\n  y: 3\nlist: {<<: [{x: 5}, *b]}\n")
    assert document.data["use"] == {"x": 1, "y": 3}
    assert document.data["list"] == {"x": 5, "y": 2}
    assert document.position(("use", "x")) == Position("a.yaml", 2, 6)
    assert document.position(("use", "y")) == Position("a.yaml", 6, 6)
    assert document.position(("list", "x")).line == 7


def test_nested_anchors_are_bounded():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert "anchors" in problems("\n".join(lines))[0].message


def test_an_anchor_in_itself_and_deep_nesting():
    assert "nests deeper" in problems("a: &a [*a]")[0].message
    assert "nests" in problems("[" * 5000 + "]" * 5000)[0].message


def test_keys():
    assert only("{2: a, on: b}").data == {2: "a", True: "b"}
    assert only("on: b").position((True,)) == only("on: b").position(("True",)) == Position("a.yaml", 1, 5)
    assert "key must be text" in problems("? [a, b]\n: 1\n")[0].message
    assert "key must be text" in problems("{{ x }}: 1\n")[0].message


def test_merge_key_of_something_else():
    assert "`<<` takes a mapping" in problems("a: {<<: 5}")[0].message


@pytest.mark.parametrize("text", ["a: b: c", "a: [1", "*nope", "a: \x07", "%YAML 3.0\n---\na: 1\n"])
def test_syntax_errors_have_a_line(text):
    assert all(problem.position.line >= 1 for problem in problems(text))


@given(st.text(max_size=80))
def test_any_text_gives_documents_or_problems_with_a_line(text):
    found: tuple[Problem, ...] = ()
    try:
        parse_documents(text, "a.yaml")
    except SpecError as exc:
        found = exc.problems or (Problem("no problem"),)
    assert all(problem.position is not None for problem in found)


# C1 controls, surrogates and non-characters can't stand in YAML unescaped.
WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"], exclude_characters="\ufeff"), max_size=5)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | WORDS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=10,
    )
)
def test_json_reads_back_with_a_place_for_every_node(tree):
    document = parse_documents(json.dumps({"tree": tree}, ensure_ascii=False), "a.yaml")[0]
    assert document.data == {"tree": tree}

    def walk(value, path):
        assert document.position(path).line == 1
        children = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, child in children:
            assert document.child((*path, key)).data == child
            walk(child, (*path, key))

    walk(document.data, ())
