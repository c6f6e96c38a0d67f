"""Inputs on a host: made of objects, once, whole or not at all."""

from __future__ import annotations

import concurrent.futures
import errno
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from satellite_fixture import HOSTILE

from dagster_slurm_components.data.host import trees
from dagster_slurm_components.data.host.content import tree_key
from dagster_slurm_components.data.host.layout import Layout
from dagster_slurm_components.data.host.program import answer
from dagster_slurm_components.environments.host.tools import Problem


def put(workdir: Path, content: bytes, kind: str = "") -> str:
    """Let an object in, as an upload does."""
    layout, digest = Layout(str(workdir)), hashlib.sha256(content).hexdigest()
    part = Path(os.fsdecode(layout.folder(b"incoming")), digest)
    part.write_bytes(content)
    layout.admit(os.fsencode(part), kind, digest)
    return digest


def order(workdir: Path, rows: list[tuple[str, str, str]], folders: tuple[str, ...] = (), **more: Any) -> Any:
    given = {"name": "images", "source": "file:images", "is_folder": True, **more}
    return {"workdir": str(workdir), "rows": rows, "folders": list(folders), **given}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_folder_is_links_to_its_objects(workdir: Path):
    one, two = put(workdir, b"one"), put(workdir, b"#!", "x")
    rows = [("a/1", "", one), ("b/1", "", one), ("run", "x", two), ("l", "l", "a/1")]
    made = trees.link(order(workdir, rows, ("empty/inner",)))
    assert made["key"] == tree_key("images", rows, ["empty/inner"], True)
    assert (made["state"], made["bytes"], made["count"], made["copied"]) == ("made", 8, 4, 0)
    top = workdir / "data" / "trees" / made["key"]
    assert (top / "images" / "l").read_bytes() == b"one"
    assert (top / "images" / "a" / "1").samefile(top / "images" / "b" / "1")
    assert (top / "images" / "a" / "1").samefile(workdir / "data" / "objects" / one[:2] / one)
    assert (mode(top / "images" / "a" / "1"), mode(top / "images" / "run")) == (0o400, 0o500)
    assert [mode(top / name) for name in ("images", "images/empty", "images/empty/inner")] == [0o500] * 3
    assert mode(top) == mode(workdir / "data") == mode(workdir / "data" / "objects") == 0o700
    assert trees.link(order(workdir, rows, ("empty", "empty/inner")))["state"] == "ready"
    ready = json.loads((top / ".ready").read_text())
    assert {"key", "name", "source", "bytes", "count", "made"} <= set(ready)


def test_a_single_file_keeps_its_name(workdir: Path):
    digest = put(workdir, b"x,y\n")
    made = trees.link(order(workdir, [("", "", digest)], name="a b\n\udcff.csv", is_folder=False))
    top = os.fsencode(workdir / "data" / "trees" / made["key"])
    assert sorted(os.listdir(top)) == [b".ready", b"a b\n\xff.csv"]


def test_hostile_names_lie_where_they_should(workdir: Path):
    digest = put(workdir, b"")
    made = trees.link(order(workdir, [(f"{name}/{name}", "", digest) for name in HOSTILE]))
    top = os.fsencode(workdir / "data" / "trees" / made["key"] / "images")
    assert sorted(os.listdir(top)) == sorted(name.encode("utf-8", "surrogateescape") for name in HOSTILE)


def test_what_is_missing_is_named_and_nothing_is_left(workdir: Path):
    there = put(workdir, b"there")
    said = answer("link", order(workdir, [("a", "", there), ("b", "", "b" * 64), ("c", "x", "c" * 64)]))
    assert (said["ok"], said["code"], said["detail"]) == (False, "missing", ["b" * 64, "c" * 64 + "x"])
    assert [path.name for path in (workdir / "data" / "trees").iterdir() if ".lock" not in path.name] == []


def test_another_mode_needs_no_upload(workdir: Path):
    digest = put(workdir, b"#!/bin/sh")
    made = trees.link(order(workdir, [("run", "x", digest)]))
    run = workdir / "data" / "trees" / made["key"] / "images" / "run"
    assert (mode(run), made["copied"]) == (0o500, 0)


def test_of_two_at_once_one_makes_it(workdir: Path):
    rows = [(str(number), "", put(workdir, str(number).encode())) for number in range(200)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        states = [made["state"] for made in pool.map(trees.link, [order(workdir, rows)] * 4)]
    assert sorted(states) == ["made", "ready", "ready", "ready"]


def test_what_a_killed_maker_left_and_a_lost_mark_are_made_anew(workdir: Path):
    asked = order(workdir, [("a", "", put(workdir, b"a"))])
    made = trees.link(asked)
    top = workdir / "data" / "trees" / made["key"]
    (top / ".ready").write_text("")
    (top.parent / f".making-{made['key']}" / "images").mkdir(parents=True)
    assert trees.link(asked)["state"] == "made"
    assert (top / "images" / "a").read_bytes() == b"a"
    assert not (top.parent / f".making-{made['key']}").exists()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_without_hard_links_files_are_copied(number: int, workdir: Path, monkeypatch: pytest.MonkeyPatch):
    digest, real, calls = put(workdir, b"content"), os.link, []

    def link(source: bytes, target: bytes) -> None:
        calls.append(target)
        if number != errno.EMLINK or len(calls) == 1:
            raise OSError(number, os.strerror(number), source)
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    made = trees.link(order(workdir, [("a", "", digest)]))
    path = workdir / "data" / "trees" / made["key"] / "images" / "a"
    assert (path.read_bytes(), mode(path)) == (b"content", 0o400)
    assert made["copied"] == (0 if number == errno.EMLINK else 7)
    assert [each.name for each in path.parent.iterdir()] == ["a"]


def test_an_input_that_would_lie_outside_is_refused(workdir: Path):
    with pytest.raises(Problem, match="would lie outside"):
        trees.link(order(workdir, [("../../x", "", put(workdir, b""))]))
