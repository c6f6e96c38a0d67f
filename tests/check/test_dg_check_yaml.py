"""`dg check yaml` agrees on the documents that it reads, save for the gaps that the documentation lists."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dagster_dg_core import check
from dagster_dg_core.component import EnvRegistry
from dagster_dg_core.context import DgContext

PACKAGE = "checked_by_dg"

GAPS = {
    "defs-empty-attributes": "it refuses `attributes:` without a value",
    "defs-empty": "it takes an empty file for a component without a type",
    "defs-no-type": "it ends with a traceback",
    "defs-post-processing": "it does not look into `post_processing`",
    "defs-post-processing-target": "it does not look into `post_processing`",
}
"""Samples on which it decides otherwise, and what it does (dagster-dg-core 1.13)."""


@pytest.fixture(scope="module")
def dg_check_yaml(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], bool]:
    """Run its check on one document; the component types are looked up once for all samples."""
    root = tmp_path_factory.mktemp("dg")
    defs = root / "src" / PACKAGE / "defs"
    (defs / "work").mkdir(parents=True)
    for folder in (defs, defs.parent):
        (folder / "__init__.py").touch()
    (root / "pyproject.toml").write_text(
        f'[project]\nname = "{PACKAGE}"\nversion = "0"\n[tool.dg]\ndirectory_type = "project"\n'
        f'[tool.dg.project]\nroot_module = "{PACKAGE}"\n'
    )
    patch = pytest.MonkeyPatch()
    patch.chdir(root)
    patch.setattr(sys, "path", [str(root / "src"), *sys.path])
    context = DgContext.for_project_environment(Path(root), {})
    registry = EnvRegistry.from_dg_context(context, extra_modules=["dagster_slurm_components"])
    patch.undo()

    class Known:
        @staticmethod
        def from_dg_context(context: DgContext, extra_modules: object = ()) -> EnvRegistry:
            return registry

    def checked(content: bytes) -> bool:
        (defs / "work" / "defs.yaml").write_bytes(content)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(check, "EnvRegistry", Known)
            try:
                return check.check_yaml(context, [], validate_requirements=False)
            except AttributeError:
                return False

    return checked


def test_it_accepts_what_is_right(right, dg_check_yaml, capsys):
    if right.kind == "defs":
        assert dg_check_yaml(right.content) == (right.name not in GAPS), capsys.readouterr().out


def test_it_refuses_what_the_schema_can_refuse(wrong, dg_check_yaml):
    if wrong.kind == "defs" and wrong.gap is None and wrong.name not in GAPS:
        assert not dg_check_yaml(wrong.content)


def test_the_documentation_lists_the_gaps():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "checking.md").read_text()
    for words in (
        "one document of each component type",
        "included files",
        "`post_processing`",
        "an empty file",
    ):
        assert words in page
