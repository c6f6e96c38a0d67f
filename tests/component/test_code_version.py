"""A code version changes with what shapes a result, and with nothing else."""

from __future__ import annotations

import shutil

import pytest

BASE = """
payload: train.py
args: ["--epochs", "3"]
env: {BATCH_SIZE: "128", TOKEN: "{{ env('SECRET_TOKEN') }}"}
files: [config/*.txt]
resources: {nodes: 1}
assets: [{key: a}]
"""


@pytest.fixture
def version(project, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "one")
    project.write("config/a.txt", "a")

    def of(text: str = BASE) -> str:
        project.script(text)
        return project.assets()["a"].code_version

    return of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("3", "4"),
        ("128", "256"),
        ("SECRET_TOKEN", "PATH"),
        ("files: [config/*.txt]", "files: [config/*.txt, train.py]"),
        ("payload: train.py", "payload: ./train.py"),
        ("resources:", "launcher: {type: srun}\nresources:"),
        ("resources:", "environment: {type: modules, load: [gcc]}\nresources:"),
    ],
)
def test_changes_with_what_is_written(version, old, new):
    assert version(BASE.replace(old, new)) != version()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nodes: 1", "nodes: 2"),
        ("{key: a}", "{key: a, group_name: g}"),
        ("resources:", "name: b\nresources:"),
    ],
)
def test_stays_where_results_do(version, old, new):
    assert version(BASE.replace(old, new)) == version()


def test_changes_with_the_content_of_files(version, project):
    before = version()
    project.write("train.py", "print('other')\n")
    after = version()
    project.write("config/a.txt", "b")
    assert len({before, after, version()}) == 3


def test_changes_with_the_name_of_files(version, project):
    before = version()
    (project.folder / "config/a.txt").rename(project.folder / "config/b.txt")
    assert version() != before


def test_is_the_same_elsewhere_and_under_another_secret(version, project, monkeypatch):
    before = version()
    moved = project.root / "elsewhere"
    shutil.move(project.folder, moved)
    project.folder.mkdir()
    for name in ("train.py", "config"):
        shutil.move(moved / name, project.folder / name)
    monkeypatch.setenv("SECRET_TOKEN", "two")
    assert version() == before


def test_defaults_count_too(project):
    script = "scripts: [{payload: train.py, assets: [{key: a}]}]"
    project.attributes(f"defaults: {{args: [x]}}\n{script}")
    one = project.assets()["a"].code_version
    project.attributes(f"defaults: {{args: [y]}}\n{script}")
    assert project.assets()["a"].code_version != one
