"""Payloads that Dagster would import are found by the rule by which it imports them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from dagster.components.core.component_tree import ComponentTree

from dagster_slurm_components.spec.imported import is_imported, works_on_import
from dagster_slurm_components.spec.project import check_project

OURS = "type: dagster_slurm_components.SlurmScriptComponent\nattributes: {}\n"
FOLDER = "type: dagster.DefsFolderComponent\n"
PAYLOAD = "from dagster_pipes import open_dagster_pipes\n\nwith open_dagster_pipes() as pipes:\n    pass\n"
GUARDED = """
import dagster_pipes


def main():
    with dagster_pipes.open_dagster_pipes() as pipes:
        pass


if __name__ == "__main__":
    main()
    dagster_pipes.open_dagster_pipes()
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "imported"),
    [
        ({}, True),
        ({"definitions.py": ""}, True),
        ({"defs.yaml": OURS}, False),
        ({"component.yaml": OURS}, False),
        ({"defs.yaml": FOLDER}, True),
        ({"../defs.yaml": OURS}, False),
        ({"../defs.yaml": FOLDER}, True),
        ({"../other/defs.yaml": OURS}, True),
    ],
)
def test_as_dagster_imports_it(files: dict[str, str], imported: bool, tmp_path: Path) -> None:
    """Dagster itself loads the folder: the module leaves a mark when it is imported."""
    defs, mark = tmp_path / "defs", tmp_path / "mark"
    write(defs / "work", {"payload.py": f"open({str(mark)!r}, 'w').close()\n", **files})
    (tmp_path / "pyproject.toml").touch()
    assert is_imported(defs / "work" / "payload.py") is imported
    module = ModuleType("made_up_imported_defs")
    module.__file__, module.__path__ = str(defs / "__init__.py"), [str(defs)]
    sys.modules[module.__name__] = module
    try:
        ComponentTree(defs_module=module, project_root=tmp_path).build_defs()
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == module.__name__]:
            del sys.modules[name]
    assert mark.exists() is imported


def test_outside_of_defs_nothing_is_imported(tmp_path: Path) -> None:
    assert not is_imported(tmp_path / "workloads" / "train.py")
    assert not is_imported(tmp_path / "defs" / ".hidden" / "train.py")
    assert not is_imported(tmp_path / "defs" / "train.sh")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (PAYLOAD, 3),
        (GUARDED, None),
        ("import dagster_pipes\npipes = dagster_pipes.open_dagster_pipes()\n", 2),
        ("try:\n    open_dagster_pipes()\nfinally:\n    pass\n", 2),
        ("def main():\n    with open_dagster_pipes() as pipes:\n        pass\n\nmain()\n", 2),
        ("import dagster as dg\n# open_dagster_pipes() is the payload's\n", None),
    ],
)
def test_what_runs_on_import(text: str, line: int | None, tmp_path: Path) -> None:
    write(tmp_path, {"payload.py": text})
    assert works_on_import(tmp_path / "payload.py", is_payload=False) == line


def test_check_warns_where_the_payload_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_SLURM_PROFILE", raising=False)
    write(
        tmp_path,
        {
            "pyproject.toml": "",
            "defs/baseline/definitions.py": "",
            "defs/baseline/train.py": PAYLOAD,
            "defs/owned/defs.yaml": OURS.replace(
                "{}", "{scripts: [{payload: ../shared/plain.py, assets: [{key: a}]}]}"
            ),
            "defs/owned/train.py": PAYLOAD,
            "defs/shared/plain.py": "print('works')\n",
            "defs/shared/guarded.py": GUARDED,
            "workloads/train.py": PAYLOAD,
        },
    )
    found = check_project([tmp_path]).problems
    assert [(each.level, each.kind) for each in found] == [("warning", "imported")] * 2
    assert [str(each).split(": ")[0].removeprefix(f"{tmp_path}/defs/") for each in found] == [
        "baseline/train.py:3:1",
        "shared/plain.py:1:1",
    ]
    assert all("__main__" in (each.hint or "") for each in found)
