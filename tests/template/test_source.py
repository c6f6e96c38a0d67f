"""A new project takes this package from where its template came from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from jinja2 import Environment
from template_fixture import ROOT, answers, render, template_copy

from dagster_slurm_components.cli import new
from dagster_slurm_components.errors import DagsterSlurmError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HASH = "0123456789abcdef0123456789abcdef01234567"


def source_of(project: Path) -> dict[str, str] | None:
    """Return what uv is told of this package's source."""
    tool = tomllib.loads((project / "pyproject.toml").read_text())["tool"]
    return dict(tool["uv"]["sources"]["dagster-slurm-components"]) if "uv" in tool else None


@pytest.mark.parametrize(
    ("place", "commit", "source"),
    [
        ("https://example.org/a/b.git", "v0.2.0", "git+https://example.org/a/b.git@v0.2.0"),
        ("https://example.org/a/b.git", "v0.2.0-3-g0123456", f"git+https://example.org/a/b.git@{HASH}"),
        ("git+https://example.org/a/b", "0123456", f"git+https://example.org/a/b@{HASH}"),
        ("gh:ada/engine", "v1.0", "git+https://github.com/ada/engine@v1.0"),
        ("gl:ada/engine.git", "v1.0", "git+https://gitlab.com/ada/engine.git@v1.0"),
        ("git@example.org:ada/engine.git", "v1.0", "git+ssh://git@example.org/ada/engine.git@v1.0"),
        ("ssh://git@example.org:22/e.git", "v1.0", "git+ssh://git@example.org:22/e.git@v1.0"),
        ("file:///srv/engine.git", "v1.0", "git+file:///srv/engine.git@v1.0"),
        ("/srv/engine.git", "v1.0", "git+file:///srv/engine.git@v1.0"),
        ("/srv/engine", "v1.0", "/srv/engine"),
        ("engine", "v1.0", str(Path.cwd() / "engine")),
        ("~/engine", "v1.0", str(Path.home() / "engine")),
    ],
)
def test_where_a_template_came_from(place: str, commit: str, source: str) -> None:
    environment = Environment(extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"])
    known: dict[str, Any] = {
        "_copier_answers": {"_src_path": place, "_commit": commit},
        "_copier_conf": {"vcs_ref_hash": HASH},
    }
    questions = yaml.safe_load((ROOT / "copier.yml").read_text())
    for name in ("template_url", "package_source"):
        known[name] = environment.from_string(questions[name]["default"]).render(known)
    assert known["package_source"] == source


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        ("", None),
        ("/wheels/a b/x.whl", {"path": "/wheels/a b/x.whl"}),
        ("https://example.org/x.whl", {"url": "https://example.org/x.whl"}),
        ("git+https://example.org/x.git@v1", {"git": "https://example.org/x.git", "rev": "v1"}),
        ("git+ssh://git@example.org/x.git", {"git": "ssh://git@example.org/x.git"}),
    ],
)
def test_an_answer_is_written_and_remembered(
    tmp_path: Path, answer: str, source: dict[str, str] | None
) -> None:
    project = render(tmp_path / "p", package_source=answer)
    assert source_of(project) == source
    assert answers(project)["package_source"] == answer


def test_a_folder_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = template_copy(tmp_path / 'it is "here" ü')
    monkeypatch.chdir(tmp_path)
    copier.run_copy(template.name, tmp_path / "p", defaults=True, quiet=True)
    assert source_of(tmp_path / "p") == {"path": str(template)}
    assert "package_source" not in answers(tmp_path / "p"), "it is computed anew at each update"


@pytest.mark.parametrize(
    "answer", ["../x", "x.whl", "http://example.org/", "git+https://example.org", "dagster"]
)
def test_a_source_that_nothing_can_be_got_from_is_refused(tmp_path: Path, answer: str) -> None:
    with pytest.raises(ValueError, match="Write an absolute path"):
        render(tmp_path / "p", package_source=answer)


class Installed:
    """An installed distribution, with the origin that pip or uv recorded (PEP 610)."""

    def __init__(self, origin: object) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let this package be installed from somewhere; returns a function that is told from where."""
    monkeypatch.setattr(new, "_template_folder", lambda: tmp_path)
    return lambda origin: monkeypatch.setattr(new, "distribution", lambda name: Installed(origin))


def test_where_this_package_came_from(tmp_path: Path, installed: Any) -> None:
    wheel = tmp_path / "a b.whl"
    wheel.touch()
    git = {"vcs": "git", "commit_id": HASH, "requested_revision": "v0.2.0"}
    for origin, source in (
        (None, ""),
        ({"url": wheel.as_uri(), "archive_info": {}}, str(wheel)),
        ({"url": tmp_path.as_uri(), "dir_info": {}}, str(tmp_path)),
        ({"url": "https://example.org/x.whl", "archive_info": {}}, "https://example.org/x.whl"),
        ({"url": "https://example.org/x.git", "vcs_info": git}, f"git+https://example.org/x.git@{HASH}"),
    ):
        installed(origin)
        assert new._package_source() == source


def test_a_wheel_that_is_gone_is_told(tmp_path: Path, installed: Any) -> None:
    installed({"url": (tmp_path / "x.whl").as_uri(), "archive_info": {}})
    with pytest.raises(DagsterSlurmError, match=r"x\.whl, which is gone") as told:
        new._package_source()
    assert "--data package_source=" in str(told.value.hint)


def test_a_source_tree_is_taken_itself() -> None:
    assert new._package_source() == str(ROOT)


def test_the_template_asks_for_this_version(tmp_path: Path) -> None:
    project = render(tmp_path / "p", package_source="")
    (wanted,) = (
        each
        for each in tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
        if each.startswith("dagster-slurm-components")
    )
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert wanted == "dagster-slurm-components[uv]>=" + ".".join(version.split(".")[:2])
