"""Values of Python assets as files: what is stored is loaded again, whole or not at all, and nothing collides."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from upath import UPath
from waiting import PATIENCE

from dagster_slurm_components import HostPathIOManager
from dagster_slurm_components.component import host_paths


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostPathIOManager:
    """A manager in a project, which is the working folder."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    return HostPathIOManager()


class Odd:
    """Something that only Python knows."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd)

    __hash__ = None


def asset(value: Any, key: Sequence[str] = ("a",), **words: Any) -> dg.AssetsDefinition:
    """Return a Python asset of a value."""

    # `dg.asset` would name its op by the key, and that takes no name.
    @dg.multi_asset(outs={"result": dg.AssetOut(key=[*key])}, **words)
    def made():
        return value

    return made


def store(files: HostPathIOManager, instance: dg.DagsterInstance, value: Any, **words: Any) -> dict[str, Any]:
    """Store a value by a step; return what is told."""
    run = {name: words.pop(name) for name in ("partition_key", "tags") if name in words}
    made = asset(value, **words)
    result = dg.materialize([made], instance=instance, resources={"io_manager": files}, **run)
    (event,) = result.asset_materializations_for_node("made")
    return {name: each.value for name, each in event.metadata.items()}


def taken(
    files: HostPathIOManager,
    instance: dg.DagsterInstance,
    kind: Any = None,
    *,
    of: dg.AssetsDefinition | None = None,
    metadata: Mapping[str, Any] | None = None,
    partition: str | None = None,
    partitions: dg.PartitionsDefinition | None = None,
) -> Any:
    """Return what a Python asset gets as an argument of a type, or what its step is told."""
    got, of = [], of or asset(None)

    def takes(value):
        got.append(value)

    takes.__annotations__ = {"return": None} | ({} if kind is None else {"value": kind})
    ins = {"value": dg.AssetIn(of.key, metadata=metadata)}
    python = dg.asset(ins=ins, partitions_def=partitions)(takes)
    defs = dg.Definitions([of, python], resources={"io_manager": files})
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[python.key], partition_key=partition, raise_on_error=False
    )
    if result.success:
        return got[0]
    (failed,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return failed.user_failure_data.description if failed.user_failure_data else failed.error.to_string()


@pytest.mark.parametrize(
    ("value", "name", "what"),
    [
        ("süß\r\n\udcff", "value.txt", "text"),
        ("", "value.txt", "text"),
        (b"\0\xff", "value.bin", "bytes"),
        ({"a": [1, 2.5, None, True, "x"], "": {}}, "value.json", "JSON"),
        ([], "value.json", "JSON"),
        (0, "value.json", "JSON"),
        (False, "value.json", "JSON"),
        (2**80, "value.json", "JSON"),
        ((1, 2), "value.pickle", "pickle of a `tuple`: only Python can read it"),
        ({1: 2}, "value.pickle", "pickle of a `dict`: only Python can read it"),
        ([float("inf")], "value.pickle", "pickle of a `list`: only Python can read it"),
        (Odd(), "value.pickle", "pickle of a `Odd`: only Python can read it"),
    ],
)
def test_a_value_is_a_file_and_comes_back_as_it_was(files, instance, tmp_path, value, name, what):
    told = store(files, instance, value)
    file = tmp_path / ".dagster-slurm/assets/a" / name
    assert told == {"path": str(file), "stored_as": what}
    assert sorted(each.name for each in file.parent.iterdir()) == [".lock", name]
    got = taken(files, instance)
    assert (got, type(got)) == (value, type(value))
    assert taken(files, instance, Path) == file
    if what == "JSON":
        assert json.loads(file.read_bytes()) == value


def test_nothing_is_stored_and_not_told(files, instance):
    assert store(files, instance, None) == {}
    assert taken(files, instance) is None


@pytest.mark.parametrize(("name", "stored"), [("m.pt", "value.file.pt"), ("x.tar.gz", "value.file.tar.gz")])
def test_a_file_is_copied(files, instance, tmp_path, name, stored):
    source = tmp_path / name
    source.write_bytes(b"one")
    told = store(files, instance, source)
    source.write_bytes(b"two")
    got = taken(files, instance)
    assert (str(got), got.name, got.read_bytes()) == (told["path"], stored, b"one")
    assert (taken(files, instance, str), taken(files, instance, bytes)) == ("one", b"one")
    assert isinstance(taken(files, instance, UPath), UPath)
    assert told["stored_as"] == "file"


def test_a_folder_is_copied_and_replaced(files, instance, tmp_path):
    source = tmp_path / "w eights"
    (source / "deep").mkdir(parents=True)
    (source / "deep/é\n").write_text("x")
    told = store(files, instance, source)
    assert (told["stored_as"], taken(files, instance, Path)) == ("folder", Path(told["path"]))
    (source / "deep/é\n").rename(source / "y")
    store(files, instance, source)
    got = taken(files, instance)
    assert sorted(each.name for each in got.rglob("*")) == ["deep", "y"]
    assert taken(files, instance, str) == "x"
    (source / "z").touch()
    store(files, instance, source)
    assert "has 2 files, and no single `str`: take it as a `Path`." in taken(files, instance, str)
    assert sorted(each.name for each in got.parent.iterdir()) == [".lock", "value.folder"]


def test_a_value_of_another_type_takes_its_place(files, instance, tmp_path):
    for value in ("text", {"a": 1}, tmp_path / "deep", b"x"):
        told = store(files, instance, value)
        folder = Path(told["path"]).parent
        assert {each.name for each in folder.iterdir()} == {".lock", Path(told["path"]).name}
    assert taken(files, instance) == b"x"


def test_what_can_not_be_stored_leaves_what_was_there(files, instance, tmp_path):
    store(files, instance, "old")
    for value, text in (
        (tmp_path / "none", f"{tmp_path}/none is to be stored, and is not there."),
        (tmp_path, f"{tmp_path} can't be stored in a folder of its own"),
        (lambda: None, "pickle"),
    ):
        with pytest.raises(Exception, match=text):
            store(files, instance, value)
    assert taken(files, instance) == "old"
    folder = tmp_path / ".dagster-slurm/assets/a"
    assert {each.name for each in folder.iterdir()} == {".lock", "value.txt"}


def test_what_a_killed_step_left_is_no_value(files, instance, tmp_path):
    folder = tmp_path / ".dagster-slurm/assets/a"
    (folder / ".part/old").mkdir(parents=True)
    (folder / ".part/value.txt").write_text("half of i")
    assert "There is no value of `a` in" in taken(files, instance)
    told = store(files, instance, {"a": 1})
    assert {each.name for each in folder.iterdir()} == {".lock", "value.json"}
    # One was renamed into its place, and nothing was told of it any more.
    (folder / "value.txt").write_text("new")
    assert taken(files, instance) == {"a": 1}
    Path(told["path"]).unlink()
    assert taken(files, instance) == "new"
    (folder / "value.bin").touch()
    assert "has several values in" in taken(files, instance)


HOSTILE = [
    ["a"],
    ["a", "b"],
    ["a/b"],
    ["a%2Fb"],
    [".."],
    ["."],
    ["%2E."],
    ["a", "value.json"],
    ["a", "value%2Ejson"],
    ["a", "partition=b"],
    [".part"],
    [".lock"],
    ["/etc"],
    ["é\n$(x)"],
    ["x" * 300],
    ["x" * 299 + "y"],
]


def test_no_two_keys_and_partitions_share_a_place(files, instance, tmp_path):
    keys = dg.DynamicPartitionsDefinition(name="keys")
    partitions = ["b", "..", "/", "a/b", "a%2Fb", "value.json", "é", "y" * 250]
    instance.add_dynamic_partitions("keys", partitions)
    places = []
    for number, key in enumerate(HOSTILE):
        places.append(store(files, instance, number, key=key)["path"])
    for number, partition in enumerate(partitions):
        words = {"key": ["a"], "partitions_def": keys, "partition_key": partition}
        places.append(store(files, instance, -number, **words)["path"])
    assert len(set(places)) == len(places)
    base = tmp_path / ".dagster-slurm/assets"
    for number, (key, place) in enumerate(zip(HOSTILE, places, strict=False)):
        assert Path(place).resolve().is_relative_to(base)
        assert taken(files, instance, of=asset(None, key=key)) == number
    of = asset(None, partitions_def=keys)
    got = taken(files, instance, dict, of=of)
    assert got == {partition: -number for number, partition in enumerate(partitions)}
    assert taken(files, instance, int, of=of, partitions=keys, partition="..") == -1


def test_partitions_of_several_dimensions(files, instance):
    two = dg.MultiPartitionsDefinition(
        {
            "x": dg.StaticPartitionsDefinition(["a", "a/b"]),
            "y": dg.StaticPartitionsDefinition(["c", "b/c"]),
        }
    )
    for number, key in enumerate(two.get_partition_keys()):
        store(files, instance, number, partitions_def=two, partition_key=key)
    some = {"allow_missing_partitions": True}
    got = taken(files, instance, dict[str, int], of=asset(None, partitions_def=two), metadata=some)
    assert got == {str(key): number for number, key in enumerate(two.get_partition_keys())}


LETTERS = dg.StaticPartitionsDefinition(["a", "b"])


def test_what_is_missing_is_told(files, instance):
    never = taken(files, instance, int)
    assert never.startswith("There is no value of `a` in /")
    assert never.endswith("/a: materialize it.")
    assert taken(files, instance, int | None) is None
    store(files, instance, 1, partitions_def=LETTERS, partition_key="a")
    of = asset(None, partitions_def=LETTERS)
    assert "There is no value of `a` in partition `b` in" in taken(files, instance, of=of)
    assert taken(files, instance, of=of, metadata={"allow_missing_partitions": True}) == {"a": 1}
    named = taken(files, instance, of=of, metadata={"output": "x"})
    assert (
        named
        == "Output `x` is asked for of `a` in partition `a`, whose newest materialization has no outputs."
    )


def test_one_value_is_of_one_partition(files, instance):
    ends = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
    with pytest.raises(dg.Failure, match="One value of `a` can't be stored for 2 partitions"):
        store(
            files,
            instance,
            1,
            partitions_def=LETTERS,
            backfill_policy=dg.BackfillPolicy.single_run(),
            tags=ends,
        )


def test_a_type_that_is_none_is_refused(files, instance, tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1')
    store(files, instance, tmp_path / "x.json")
    assert "can't be had as `int`. It can be `Path`, `UPath`, `str`," in taken(files, instance, int)
    assert "can't be read as `dict`: Expecting ',' delimiter" in taken(files, instance, dict)
    (tmp_path / "x.json").write_bytes(b"\xff")
    store(files, instance, tmp_path / "x.json")
    assert "can't be read as `str`: 'utf-8' codec can't decode byte 0xff" in taken(files, instance, str)


def test_values_of_ops_in_a_graph(files, instance):
    @dg.op(out=dg.DynamicOut(io_manager_key="io_manager"))
    def parts():
        for name in ("one", "two"):
            yield dg.DynamicOutput(name, mapping_key=name)

    @dg.op
    def longer(part: str) -> dict:
        return {part: len(part)}

    @dg.op
    def both(parts: list) -> list:
        return [key for part in parts for key in part]

    @dg.graph_asset
    def a():
        return both(parts().map(longer).collect())

    assert dg.materialize([a], instance=instance, resources={"io_manager": files}).success
    assert taken(files, instance, list, of=a) == ["one", "two"]


@pytest.mark.parametrize("base", ["memory://somewhere/assets", "file://"])
def test_a_url(instance, tmp_path, base):
    base = f"file://{tmp_path}/far" if base == "file://" else base
    files = HostPathIOManager(base_path=base)
    try:
        told = store(files, instance, {"a": 1})
        assert told["path"] == str(UPath(base) / "a/value.json")
        assert taken(files, instance) == {"a": 1}
        (tmp_path / "w/deep").mkdir(parents=True)
        (tmp_path / "w/deep/x").write_text("one")
        for text in ("one", "two"):
            (tmp_path / "w/deep/x").write_text(text)
            told = store(files, instance, tmp_path / "w")
        folder = UPath(told["path"])
        assert [each.name for each in folder.parent.iterdir()] == ["value.folder"]
        assert [each.read_text() for each in folder.rglob("*") if each.is_file()] == ["two"]
        assert taken(files, instance, str) == "two"
        assert str(taken(files, instance)) == told["path"]
        assert str(taken(files, instance, UPath)) == told["path"]
        assert "which is no path of this machine: take it as a `UPath`." in taken(files, instance, Path)
    finally:
        UPath(base).fs.rm(UPath(base).path, recursive=True)


def test_of_two_that_store_at_once_one_comes_after_the_other(tmp_path, monkeypatch):
    """Whoever looks finds one of them whole."""
    source = tmp_path / "w"
    source.mkdir()
    for name in ("a", "b"):
        (source / name).write_text("x")

    def one(_: int) -> None:
        host_paths._store(source, tmp_path / "place")

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(one, number) for number in range(20)]:
            done.result(PATIENCE)
    assert sorted(os.listdir(tmp_path / "place")) == [".lock", "value.folder"]
    assert sorted(os.listdir(tmp_path / "place/value.folder")) == ["a", "b"]
    shutil.rmtree(tmp_path / "place")
