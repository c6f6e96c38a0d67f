"""The scripts and components of a Dagster project, as Dagster itself loads them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profiles import PROFILE_VARIABLE

if TYPE_CHECKING:
    from dagster_slurm_components.component.specs import SlurmScript


def project_scripts(folder: Path, profile: str | None) -> list[SlurmScript]:
    """Load the scripts of the Dagster project around a folder; templates know the values of the profile.

    Raises:
        DagsterSlurmError: There is no project, or it can't be loaded.
        SpecError: A component has mistakes.
    """
    # Imported on use: Dagster takes a second.
    import dagster as dg  # noqa: PLC0415
    from dagster.components.core.component_tree import ComponentTree  # noqa: PLC0415

    from dagster_slurm_components.component.script_component import (  # noqa: PLC0415
        InvalidScriptsError,
        SlurmScriptComponent,
    )

    with _importable(folder), chosen(profile):
        try:
            tree = ComponentTree.for_project(folder)
            components = tree.get_all_components(of_type=SlurmScriptComponent)
        except (dg.DagsterError, ImportError) as error:
            raise DagsterSlurmError(
                f"the project can't be loaded: {error}",
                where=str(folder),
                hint="Run this in a project of `dg`, in the environment that the project is installed in.",
            ) from error
        except Exception as error:
            # Dagster wraps what a component raises into an exception of its own (ComponentTreeException, 1.13).
            if isinstance(error.__cause__, InvalidScriptsError):
                raise SpecError(error.__cause__.problems) from None
            raise
    return [script for component in components for script in component.scripts]


def is_script_component(name: str, file: Path) -> bool:
    """Tell whether ``module.Class``, which a file names, is a subclass of ours; one that can't be imported is not."""
    module, _, attribute = name.rpartition(".")
    if not module or f"{module}.".startswith(("dagster.", "dagster_")):
        return False  # Dagster's own integrations hold none, and take seconds to import
    from dagster_slurm_components.component.script_component import SlurmScriptComponent  # noqa: PLC0415

    with _importable(file.parent):
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except Exception:  # noqa: BLE001 -- a user's module may raise anything; Dagster tells it when it loads it
            return False
    return isinstance(found, type) and issubclass(found, SlurmScriptComponent)


@contextmanager
def chosen(profile: str | None) -> Iterator[None]:
    """Choose a profile for templates too: definitions are loaded with the values of the chosen one."""
    if profile is None:
        yield
        return
    before = os.environ.get(PROFILE_VARIABLE)
    os.environ[PROFILE_VARIABLE] = profile
    try:
        yield
    finally:
        del os.environ[PROFILE_VARIABLE]
        os.environ.update({PROFILE_VARIABLE: before} if before is not None else {})


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the modules of a project that isn't installed be found, as those of one that is."""
    folder = folder.absolute()
    roots = [path for path in (folder, *folder.parents) if (path / "pyproject.toml").is_file()]
    added = [str(root / "src") for root in roots[:1] if (root / "src").is_dir()]
    sys.path[:0] = added
    try:
        yield
    finally:
        for path in added:
            sys.path.remove(path)
