"""What fsspec reads is fetched to this machine once, and again where it has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dagster_slurm_components.data.remote import fetch_here
from dagster_slurm_components.errors import InputFailedError


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("DAGSTER_SLURM_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/bucket", recursive=True)


def fetched(url: str, most: int | None = None) -> tuple[Path, list[str]]:
    told: list[str] = []
    return fetch_here(url, most, told.append), told


def test_a_file_once_and_again_where_it_has_changed(memory: Any) -> None:
    memory.pipe("/bucket/a b.csv", b"1,2")
    first, told = fetched("memory://bucket/a b.csv")
    assert (first.name, first.read_bytes()) == ("a b.csv", b"1,2")
    assert told == ["memory://bucket/a b.csv, 3 B, is fetched."]
    assert fetched("memory://bucket/a b.csv") == (first, [])
    memory.pipe("/bucket/a b.csv", b"3,4,5")
    second, _ = fetched("memory://bucket/a b.csv")
    assert second.read_bytes() == b"3,4,5"
    assert first.read_bytes() == b"1,2", "a job may read it"


def test_a_folder(memory: Any) -> None:
    memory.pipe({"/bucket/zoo/a": b"a", "/bucket/zoo/deep/b": b"b"})
    folder, _ = fetched("memory://bucket/zoo")
    assert {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()} == {"a", "deep/b"}


@pytest.mark.parametrize(
    ("url", "most", "message"),
    [
        ("memory://bucket/none", None, "memory://bucket/none can't be fetched: FileNotFoundError"),
        ("memory://bucket/large", 10, "has 100 B, and `max` is 10 B"),
        ("nosuchthing://bucket/x", None, "nosuchthing://bucket/x can't be fetched: ValueError"),
    ],
)
def test_mistakes(memory: Any, url: str, most: int | None, message: str) -> None:
    memory.pipe("/bucket/large", b"x" * 100)
    with pytest.raises(InputFailedError) as error:
        fetched(url, most)
    assert message in str(error.value)
