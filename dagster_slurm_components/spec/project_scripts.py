"""All scripts of a project, resolved for one profile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

from dagster_slurm_components.spec.component import COMPONENT_TYPE, read_component
from dagster_slurm_components.spec.defs_file import FILE_NAMES
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profiles import LoadedProfile, profile_values
from dagster_slurm_components.spec.project import yaml_files
from dagster_slurm_components.spec.resolve import ResolvedScript
from dagster_slurm_components.spec.source import load_documents
from dagster_slurm_components.spec.template_values import LazyValues
from dagster_slurm_components.spec.templates import Locate, render


def project_scripts(folder: FilePath, profile: LoadedProfile) -> Iterator[ResolvedScript]:
    """Yield every script of the components below a folder, as it runs in a profile.

    Raises:
        SpecError: A document or a script is not right.
    """
    scope = {
        "project_root": str(profile.folder),
        "profile": LazyValues(lambda: profile_values(profile.name, start=profile.folder)),
    }

    def rendered(tree: Any, position_of: Locate) -> Any:
        return render(tree, position_of, scope=scope)

    for file in yaml_files(folder):
        if file.name not in FILE_NAMES:
            continue
        for document in load_documents(file):
            if not isinstance(document.data, dict) or document.data.get("type") != COMPONENT_TYPE:
                continue
            spec = read_component(document.child(("attributes",)), render=rendered)
            if spec.problems:
                raise SpecError(spec.problems)
            for entry in spec.entries:
                yield entry.resolve(profile)
