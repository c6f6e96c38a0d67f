"""What an input is: its key, and which rows are refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from satellite_fixture import HOSTILE

from dagster_slurm_components.data.host.content import Tree, check, is_inside, stays_inside, tree_key
from dagster_slurm_components.environments.host.tools import Problem

A, B = "a" * 64, "b" * 64
WORDS = st.sampled_from(["a", "b", "c d", "é", "\udcff", "line\nbreak"])
PLACES = st.lists(WORDS, min_size=1, max_size=3).map("/".join)
ROWS = st.lists(
    st.tuples(PLACES, st.sampled_from(["", "x"]), st.sampled_from([A, B])),
    max_size=6,
    unique_by=lambda row: row[0],
)


def test_the_key_is_what_it_was():
    """Of another key all that lies on hosts would be sent anew."""
    told = tree_key("grün\udcff", [["run", "x", B], ["a/x.png", "", A]], ["empty"], True)
    text = (
        f'{{"files": [["a/x.png", "", "{A}"], ["run", "x", "{B}"]], "folder": true, "folders": ["empty"], '
        '"format": 1, "name": "gr\\u00fcn\\udcff"}'
    )
    assert told == hashlib.sha256(text.encode()).hexdigest()[:32]


@given(ROWS, st.lists(PLACES, max_size=4), st.randoms())
@settings(deadline=None)
def test_order_and_implied_folders_are_not_part_of_the_key(
    rows: list[tuple[str, str, str]], folders: list[str], random: object
):
    key = tree_key("n", rows, folders, True)
    implied = {place.rpartition("/")[0] for place, _, _ in rows} - {""}
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert tree_key("n", [list(row) for row in rows], [*folders[::-1], *implied], True) == key


@given(ROWS, ROWS, st.lists(PLACES, max_size=2))
@settings(deadline=None)
def test_other_content_has_another_key(
    rows: list[tuple[str, str, str]], others: list[tuple[str, str, str]], folders: list[str]
):
    keys = {tree_key("n", each, folders, True) for each in (rows, others)}
    assert len(keys) == (1 if sorted(rows) == sorted(others) else 2)
    assert tree_key("m", rows, folders, True) not in keys
    assert tree_key("n", rows, folders, False) not in keys


@pytest.mark.parametrize("name", HOSTILE)
def test_names_may_be_anything(name: str):
    check(Tree(name, [(f"{name}/{name}", "", A)], [f"{name}/{name} too"], True))


@pytest.mark.parametrize(
    ("name", "rows", "folders", "is_folder"),
    [
        ("..", [("", "", A)], [], False),
        ("a/b", [("", "", A)], [], False),
        ("", [("", "", A)], [], False),
        (".ready", [("", "", A)], [], False),
        ("n", [("", "", A), ("b", "", A)], [], False),
        ("n", [("", "", A)], ["b"], False),
        ("n", [("", "l", "b")], [], False),
        ("n", [], [], False),
        ("n", [("../b", "", A)], [], True),
        ("n", [("/b", "", A)], [], True),
        ("n", [("b/", "", A)], [], True),
        ("n", [("b//c", "", A)], [], True),
        ("n", [("b/./c", "", A)], [], True),
        ("n", [("", "", A)], [], True),
        ("n", [("b\0", "", A)], [], True),
        ("n", [("b\ud800", "", A)], [], True),
        ("n", [("b", "", "../../etc/passwd")], [], True),
        ("n", [("b", "", A[1:])], [], True),
        ("n", [("b", "", A + "\n")], [], True),
        ("n", [("b", "s", A)], [], True),
        ("n", [("b", "", A), ("b", "x", A)], [], True),
        ("n", [("b", "", A), ("b/c", "", A)], [], True),
        ("n", [("b", "", A)], ["b"], True),
        ("n", [("b", "", A)], ["b/c"], True),
        ("n", [], ["../c"], True),
        ("n", [("b", "l", "../c")], [], True),
        ("n", [("b", "l", "/c")], [], True),
        ("n", [("b", "l", "")], [], True),
        ("n", [("b", "l", "c"), ("b/c", "", A)], [], True),
    ],
)
def test_what_would_lie_outside_or_in_the_way_is_refused(
    name: str, rows: list[tuple[str, str, str]], folders: list[str], is_folder: bool
):
    with pytest.raises(Problem, match="the input holds") as caught:
        check(Tree(name, rows, folders, is_folder))
    assert caught.value.code == "unsafe"


@given(st.dictionaries(PLACES, st.lists(st.sampled_from(["..", ".", "a", "b"]), min_size=1, max_size=4)))
@settings(deadline=None)
def test_no_set_of_links_leads_out(tmp_path_factory: pytest.TempPathFactory, links: dict[str, list[str]]):
    top = Path(os.path.realpath(tmp_path_factory.mktemp("links", numbered=True)))
    made = []
    for place, parts in links.items():
        path, target = top / place, "/".join(parts)
        parents = [parent for parent in path.parents if parent != top]
        if stays_inside(place, target) and not any(each.is_symlink() for each in [path, *parents]):
            if path.is_dir():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
            made.append(path)
    for path in made:
        try:
            found = path.resolve(strict=True)
        except (OSError, RuntimeError):  # it leads nowhere, or in a circle
            continue
        assert found == top or top in found.parents


def test_a_link_may_go_up_to_the_top_and_no_further():
    assert stays_inside("a/b/c", "../../d")
    assert not stays_inside("a/b/c", "../../../d")
    assert not stays_inside("a/b/c", "d/../e")
    assert is_inside("a/..b/c..")
