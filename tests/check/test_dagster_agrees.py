"""Dagster itself loads what is right, and refuses what is wrong at the same lines."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
import typing
import warnings

import dagster as dg
import pytest
from dagster.components.core.component_tree import ComponentTree
from dagster.components.resolved import core_models

from dagster_slurm_components.component.script_component import InvalidScriptsError
from dagster_slurm_components.spec.assets import AssetDeclaration, CheckDeclaration
from dagster_slurm_components.spec.component import AssetPostProcessor
from dagster_slurm_components.spec.partitions import BACKFILLS, PARTITIONS

# What only a profile makes wrong: Dagster loads definitions without choosing one.
_NEEDS_A_PROFILE = ("needs the profiles", "needs the site")
_numbers = itertools.count()


@pytest.fixture
def load(project, tmp_path, monkeypatch):
    """Load a sample as a project of Dagster; return the error, if there is one."""

    def loaded(name: str, content: bytes) -> Exception | None:
        project(name, content)
        package = f"checked_{os.getpid()}_{next(_numbers)}"
        (tmp_path / "src" / package).mkdir(parents=True)
        (tmp_path / "defs").rename(tmp_path / "src" / package / "defs")
        for folder in (package, f"{package}/defs"):
            (tmp_path / "src" / folder / "__init__.py").touch()
        (tmp_path / "pyproject.toml").write_text(
            f'[project]\nname = "{package}"\nversion = "0"\n'
            f'[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "{package}"\n'
        )
        monkeypatch.syspath_prepend(tmp_path / "src")
        monkeypatch.chdir(tmp_path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = importlib.import_module(f"{package}.defs")
                ComponentTree(defs_module=module, project_root=tmp_path).build_defs().get_repository_def()
        except Exception as exc:  # noqa: BLE001 - any refusal is one
            return exc
        finally:
            for known in [known for known in sys.modules if known.startswith(package)]:
                del sys.modules[known]
        return None

    return loaded


def ours(error: BaseException | None) -> InvalidScriptsError | None:
    """Return the error that tells of our YAML, however Dagster wrapped it."""
    while error is not None and not isinstance(error, InvalidScriptsError):
        error = error.__cause__ or error.__context__
    return error


def test_dagster_loads_what_is_right(right_component, load):
    error = load(right_component.name, right_component.content)
    needs_values = b"# gap dagster: needs what its templates name" in right_component.content
    assert (error is not None) == needs_values, error


def test_dagster_refuses_what_is_wrong_at_the_same_lines(wrong_component, load):
    error = load(wrong_component.name, wrong_component.content)
    if wrong_component.gap in _NEEDS_A_PROFILE:
        assert error is None
        return
    assert error is not None
    told = ours(error)
    if told is not None:
        assert [problem.position.line for problem in told.problems] == [
            line for line, _ in wrong_component.expected
        ]
        assert "pydantic" not in str(told)
        for line, message in wrong_component.expected:
            assert any(message in p.message and p.position.line == line for p in told.problems), str(told)
    else:  # what stands around `attributes` is Dagster's own to check
        assert wrong_component.kind == "defs"


@pytest.mark.parametrize(
    ("ours", "dagsters"),
    [
        (AssetDeclaration, core_models.AssetSpecKwargs.model()),
        (CheckDeclaration, core_models.AssetCheckSpecKwargs.model()),
        (AssetPostProcessor, core_models.AssetPostProcessorModel.model()),
        *((model, getattr(core_models, f"{model.__name__}DefinitionModel")) for model in PARTITIONS.values()),
        *((model, getattr(core_models, f"{model.__name__}PolicyModel")) for model in BACKFILLS.values()),
    ],
    ids=lambda model: model.__name__,
)
def test_the_words_are_those_of_dagster(ours, dagsters):
    """Its models are not used themselves: checking must not need Dagster, and their errors name no nearest word."""
    # `dagster.AssetCheckSpec` has partitions, and Dagster's own YAML does not name them yet (1.13).
    # `AssetSpec.with_io_manager_key` keeps that key in the metadata.
    more = {CheckDeclaration: {"partitions_def"}, AssetDeclaration: {"io_manager_key"}}.get(ours, set())
    assert set(ours.model_fields) == set(dagsters.model_fields) | more
    assert ours is not CheckDeclaration or more < set(dg.AssetCheckSpec._fields)


def test_the_kinds_of_partitions_are_those_of_dagster():
    kinds = core_models.AssetSpecKwargs.model().model_fields["partitions_def"].annotation
    assert {f"{model.__name__}DefinitionModel" for model in PARTITIONS.values()} == {
        kind.__name__ for kind in typing.get_args(kinds) if kind is not str
    }
