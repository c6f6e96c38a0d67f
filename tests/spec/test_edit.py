"""One value of a YAML file replaced: nothing else changes, or nothing at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.spec.edit import replaced
from dagster_slurm_components.spec.source import parse_documents

TEXT = """\
# keep me
a: {mem: 256G,   time: "24:00:00"}   # and me
b:
    mem: 'x'  # ä
    more: &shared 4
    also: *shared
    block: |
      mem: 1
---
mem: 8G
"""


@pytest.mark.parametrize(
    ("document", "path", "value", "old", "new"),
    [
        (0, ("a", "mem"), "10G", "256G", "10G"),
        (0, ("a", "time"), "1-12:00:00", '"24:00:00"', '"1-12:00:00"'),
        (0, ("b", "mem"), "y", "'x'", "'y'"),
        (1, ("mem",), "a100:1", "8G", "a100:1"),
    ],
)
def test_the_value_alone(document: int, path: tuple[str, ...], value: str, old: str, new: str) -> None:
    for text in (TEXT, TEXT.replace("\n", "\r\n")):
        at = parse_documents(text, "f")[document].position(path)
        assert replaced(text, at, value) == text.replace(old, new)


@pytest.mark.parametrize(
    ("path", "value"), [(("b", "more"), "5"), (("b", "also"), "5"), (("b", "block"), "5"), (("a",), "5")]
)
def test_what_is_shared_or_no_scalar_stays(path: tuple[str, ...], value: str) -> None:
    assert replaced(TEXT, parse_documents(TEXT, "f")[0].position(path), value) is None


def test_what_would_be_something_else_in_yaml_stays() -> None:
    at = parse_documents(TEXT, "f")[0].position(("a", "mem"))
    assert replaced(TEXT, at, "x, y: 3") is None
    assert replaced(TEXT, at, "256G") is None


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(0, 99), min_size=1), st.data())
def test_any_mapping(values: dict[str, int], data: st.DataObject) -> None:
    text = "\n".join(f"{key}:  {value}  # {value}" for key, value in values.items())
    key = data.draw(st.sampled_from(sorted(values)))
    made = replaced(text, parse_documents(text, "f")[0].position((key,)), "100")
    assert made is not None
    assert parse_documents(made, "f")[0].data == {**values, key: 100}
    assert [line.partition("#")[2] for line in made.split("\n")] == [f" {each}" for each in values.values()]
