"""Components loaded as Dagster loads them, from a folder and without a Python package around it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest
from dagster.components.core.component_tree import ComponentTree, ComponentTreeException

from dagster_slurm_components.component.script_component import InvalidScriptsError
from dagster_slurm_components.spec.profiles import PROFILE_VARIABLE, PROFILES_DIR_VARIABLE

COMPONENT = "type: dagster_slurm_components.SlurmScriptComponent\n"


def load_folder(folder: Path) -> dg.Definitions:
    """Load a ``defs`` folder."""
    module = ModuleType("made_up_defs")
    module.__file__ = str(folder / "__init__.py")
    module.__path__ = [str(folder)]
    sys.modules[module.__name__] = module
    try:
        return ComponentTree(defs_module=module, project_root=folder.parent).build_defs()
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == module.__name__]:
            del sys.modules[name]


def mistakes(folder: Path) -> InvalidScriptsError:
    """Load a folder that has mistakes, and return what Dagster was told of them."""
    with pytest.raises(ComponentTreeException) as told:
        load_folder(folder)
    cause = told.value.__cause__
    assert isinstance(cause, InvalidScriptsError), cause
    assert cause.__cause__ is None
    assert cause.__context__ is None or cause.__suppress_context__, "a second traceback would be shown"
    return cause


@dataclass
class Project:
    """A project whose component lies in ``defs/work/defs.yaml``, with a payload ``train.py`` beside it."""

    root: Path
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.root / "defs" / "work"
        self.folder.mkdir(parents=True)
        self.write("train.py", "print('trained')\n")

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def attributes(self, text: str, *, more: str = "") -> Path:
        body = textwrap.indent(textwrap.dedent(text), "  ")
        return self.write("defs.yaml", f"{COMPONENT}attributes:\n{body}\n{textwrap.dedent(more)}")

    def script(self, text: str) -> Path:
        """Write a component of one script."""
        first, *rest = textwrap.dedent(text).strip().splitlines()
        return self.attributes("\n".join(["scripts:", f"  - {first}", *(f"    {line}" for line in rest)]))

    def load(self) -> dg.Definitions:
        return load_folder(self.root / "defs")

    def assets(self) -> dict[str, dg.AssetSpec]:
        return {spec.key.to_user_string(): spec for spec in self.load().resolve_all_asset_specs()}

    def ops(self) -> dict[str, dg.AssetsDefinition]:
        return {
            made.op.name: made for made in self.load().assets or () if isinstance(made, dg.AssetsDefinition)
        }

    def mistakes(self) -> list[str]:
        """Return each mistake as ``line: message``."""
        problems = mistakes(self.root / "defs").problems
        return [
            f"{problem.position.line if problem.position else '?'}: {problem.message}" for problem in problems
        ]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv(PROFILE_VARIABLE, raising=False)
    monkeypatch.delenv(PROFILES_DIR_VARIABLE, raising=False)
    monkeypatch.chdir(
        tmp_path
    )  # a broken project leaves Dagster's working folder where it was (dagster 1.13)
    (tmp_path / "pyproject.toml").touch()
    return Project(tmp_path)


@pytest.fixture
def profile(project: Project) -> Callable[[str, str], Path]:
    """Write a profile."""

    def write(name: str, text: str) -> Path:
        (project.root / "profiles").mkdir(exist_ok=True)
        file = project.root / "profiles" / f"{name}.yaml"
        file.write_text(textwrap.dedent(text))
        return file

    return write
