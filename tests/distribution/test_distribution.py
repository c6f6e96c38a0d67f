"""What a release consists of: complete, well described, and of use in an environment that has nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
import yaml
from template_fixture import ROOT, template_copy
from wheel_fixture import Built, Newcomer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def installed(built: Built, newcomer: Newcomer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("installed")
    newcomer.types("uv venv --quiet", folder)
    newcomer.types(f"uv pip install --quiet --python .venv/bin/python '{built.wheel}[new,uv]'", folder)
    return folder


def test_the_wheel_is_complete(built: Built, tmp_path: Path) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    package = f"dagster_slurm_components-{PROJECT['version']}"
    template = template_copy(tmp_path / "t")
    assert {str(file.relative_to(template)) for file in template.rglob("*") if file.is_file()} <= {
        name.partition("_template/")[2] for name in names
    }
    listed = subprocess.run(
        ["git", "ls-files", "--", "dagster_slurm_components", "slurm_testcluster"],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert set(listed.stdout.splitlines()) <= names
    assert {"dagster_slurm_components/py.typed", f"{package}.dist-info/licenses/LICENSE"} <= names
    schemas = f"{package}.data/data/share/dagster-slurm-components/schemas"
    assert {f"{schemas}/{file.name}" for file in (ROOT / "schemas").iterdir()} <= names


def test_the_sdist_has_what_tests_need(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"copier.yml", "LICENSE", "README.md", "tests/conftest.py", "schemas/defs.schema.json"} <= names
    assert not {name for name in names if re.search(r"\.pyc$|\.venv|\.dagster-slurm", name)}


def test_the_index_takes_it(built: Built, newcomer: Newcomer) -> None:
    newcomer.types(f"uvx --quiet twine check --strict '{built.wheel}' '{built.sdist}'", built.wheel.parent)


def test_it_is_described(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = message_from_string(archive.read(name).decode())
    assert text["Version"] == PROJECT["version"]
    assert text["License-Expression"] == "Apache-2.0"
    assert text["Requires-Python"]
    assert text["Summary"]
    pythons = {f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)}
    assert pythons <= set(text.get_all("Classifier") or [])


def test_it_runs_where_nothing_else_is(installed: Path, newcomer: Newcomer) -> None:
    said = newcomer.types(".venv/bin/dg-slurm --help", installed).stdout
    assert "new" in said
    assert "doctor" in said
    newcomer.types(".venv/bin/python -c 'import dagster_slurm_components, slurm_testcluster'", installed)


def test_it_makes_projects_that_install_it(installed: Path, built: Built, newcomer: Newcomer) -> None:
    newcomer.types(".venv/bin/dg-slurm new made --defaults", installed)
    source = tomllib.loads((installed / "made" / "pyproject.toml").read_text())["tool"]["uv"]["sources"]
    assert source == {"dagster-slurm-components": {"path": str(built.wheel)}}


def test_actions_are_named_by_hash() -> None:
    """A tag can be moved to other code; of one action all workflows name the same."""
    used: dict[str, set[str]] = {}
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            for step in job["steps"]:
                if "uses" in step:
                    name, _, version = step["uses"].partition("@")
                    assert re.fullmatch(r"[0-9a-f]{40}", version), f"{file}: {step['uses']}"
                    used.setdefault(name, set()).add(version)
    assert {name for name, versions in used.items() if len(versions) > 1} == set()
