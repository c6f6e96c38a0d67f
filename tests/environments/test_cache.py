"""This machine's cache is bounded: what nobody used lately goes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import dagster_slurm_components
from dagster_slurm_components.environments.content import Artifact
from dagster_slurm_components.environments.fetch import cached_file, fetch
from dagster_slurm_components.environments.host.tools import hash_of
from dagster_slurm_components.environments.machine import (
    _ENTRIES,
    cache_folder,
    only_one,
    recall,
    remember,
    trim_cache,
)

DAY = 86400.0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAGSTER_SLURM_CACHE", str(tmp_path / "cache"))
    return cache_folder()


def age(cache: Path, days: float) -> None:
    for path in cache.rglob("*"):
        os.utime(path, (time.time() - days * DAY,) * 2)


def artifacts(folder: Path, names: Sequence[str]) -> list[Artifact]:
    for name in names:
        (folder / name).write_text(name * 1000)
    return [
        Artifact(name, hash_of(folder / name), None, "wheel", url=(folder / name).as_uri()) for name in names
    ]


def test_what_was_not_used_goes_and_what_was_stays(cache: Path, tmp_path: Path) -> None:
    old, used = artifacts(tmp_path, ["old.whl", "used.whl"])
    fetch([old, used])
    for name in ("old", "used"):
        (cache_folder("packed", name) / "archive.tar").write_text("packed")
        remember(f"packed/{name}", "done", {})
        remember("plans", name, {"key": name})
    with only_one("a"):
        pass
    age(cache, 31)
    fetch([used])
    assert recall("packed/used", "done") == {}  # whoever looks into a folder uses it
    remember("plans", "used", {})
    before = sorted(cache.rglob("*"))
    assert trim_cache(30 * DAY, dry_run=True) > 0
    assert sorted(cache.rglob("*")) == before
    assert trim_cache(30 * DAY) == 7000 + len("packed") + len("{}") + len('{"key": "old"}')
    assert not cached_file(old).exists()
    assert cached_file(used).exists()
    assert sorted(path.name for path in cache.glob("p*/*")) == ["used", "used.json"]
    assert [path.name for path in cache.glob("locks/*")] == ["a.lock"], "a lock may be held"
    (again,) = fetch([old])
    assert Path(again.path or "").read_text() == "old.whl" * 1000


def test_what_may_be_in_use_just_now_stays_whatever_is_asked(cache: Path, tmp_path: Path) -> None:
    fetch(artifacts(tmp_path, ["young.whl"]))
    assert trim_cache(0.0) == 0
    age(cache, 1.1)
    assert trim_cache(0.0) > 0


def test_the_test_clusters_folder_beside_it_is_not_touched(cache: Path) -> None:
    (cache / "cluster").mkdir()
    (cache / "cluster" / "slurm.conf").write_text("x")
    age(cache, 400)
    assert trim_cache(0.0) == 0
    assert (cache / "cluster" / "slurm.conf").exists()


def test_no_kind_of_entry_is_forgotten() -> None:
    package = Path(dagster_slurm_components.__file__).parent
    texts = "\n".join(file.read_text("utf-8") for file in package.rglob("*.py"))
    kinds = set(re.findall(r"\b(?:cache_folder|remember)\(f?\"([\w-]+)", texts))
    assert kinds > {"files", "plans"}
    assert kinds - {entry.partition("/")[0] for entry in _ENTRIES} == {"locks"}
