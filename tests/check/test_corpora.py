"""Wrong documents give the right errors at the right lines, right ones give none; other checkers agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE

from dagster_slurm_components.spec.project import check_project
from dagster_slurm_components.spec.schemas import schema_files

ROOT = Path(__file__).parents[2]


def test_right(right, project):
    file = project(right.name, right.content)
    problems = [problem for problem in check_project([file]).problems if problem.level == "error"]
    assert not problems, "\n".join(map(str, problems))


def test_wrong(wrong, project):
    file = project(wrong.name, wrong.content)
    found = check_project([file]).problems
    assert wrong.expected, "the file says nothing of what is wrong with it"
    shown = "\n".join(map(str, found))
    assert [problem.position.line for problem in found] == [line for line, _ in wrong.expected], shown
    for problem, (_, message) in zip(found, wrong.expected, strict=True):
        assert message in problem.message, shown
        assert Path(problem.position.file).samefile(file)
        assert problem.level == "error"


def test_corpora_are_large_enough(corpora):
    assert len(corpora["wrong"]) >= 60
    assert len(corpora["right"]) >= 40


@pytest.fixture(scope="module")
def refused(corpora, tmp_path_factory) -> dict[str, str]:
    """What check-jsonschema says of each file that it refuses."""
    folder = tmp_path_factory.mktemp("agreement")
    for name, text in schema_files().items():
        (folder / name).write_text(text)
    result: dict[str, str] = {}
    for kind in ("defs", "script", "profile", "site"):
        names = []
        for corpus, found in corpora.items():
            for sample in (sample for sample in found if sample.kind == kind):
                file = folder / f"{corpus}-{sample.name}.yaml"
                file.write_bytes(sample.content)
                names.append(file.name)
        command = [sys.executable, "-m", "check_jsonschema", "--output-format", "json"]
        command += ["--schemafile", f"{kind}.schema.json", *names]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        told = json.loads(done.stdout)
        for error in [*told["errors"], *told["parse_errors"]]:
            result[Path(error["filename"]).stem] = error.get("message", "no YAML")
    return result


def test_the_schemas_refuse_nothing_that_is_right(right, refused):
    told = refused.get(f"right-{right.name}")
    assert (told is None) == (right.gap is None), told


def test_the_schemas_refuse_what_is_wrong_save_for_known_gaps(wrong, refused):
    if wrong.gap is None:
        assert f"wrong-{wrong.name}" in refused
    else:
        assert f"wrong-{wrong.name}" not in refused, "the gap is closed: remove its line from the file"


def test_known_gaps_are_documented(corpora):
    text = (ROOT / "docs" / "reference" / "checking.md").read_text()
    gaps = {sample.gap for sample in corpora["wrong"] if sample.gap}
    missing = {gap for gap in gaps if gap not in text}
    assert not missing


def test_schemas_in_the_repository_are_up_to_date():
    for name, text in schema_files().items():
        assert (ROOT / "schemas" / name).read_text() == text, "run `dg-slurm schema`"
