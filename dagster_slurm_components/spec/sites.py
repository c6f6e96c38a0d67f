"""The sites that profiles may name: those shipped here, and the project's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath

from dagster_slurm_components.spec.problems import Problem, SpecError, did_you_mean
from dagster_slurm_components.spec.profiles import SHIPPED_SITES, project_folder, single_document, validated
from dagster_slurm_components.spec.site import Site
from dagster_slurm_components.spec.templates import render

OWN_SITES = "sites"
"""The folder of a project's own sites, beside its ``profiles/``."""


@dataclass(frozen=True)
class KnownSite:
    """A site and the file that holds its facts.

    Attributes:
        name: What a profile writes as ``site``.
        file: Where the facts are.
        shipped: Whether it came with this package; else the project has it.
    """

    name: str
    file: FilePath
    shipped: bool

    def load(self) -> Site:
        """Read the facts.

        Raises:
            SpecError: The file has mistakes.
        """
        document = single_document(self.file)
        return validated(Site, render(document.data, document.position), document)


def known_sites(start: FilePath) -> Mapping[str, KnownSite]:
    """Return all sites by name; one of the project's own stands before a shipped one of the same name.

    Args:
        start: A folder of the project.
    """
    shipped = {file.stem: KnownSite(file.stem, file, True) for file in SHIPPED_SITES.glob("*.yaml")}
    own_folder = project_folder(start) / OWN_SITES
    own = {file.stem: KnownSite(file.stem, file, False) for file in own_folder.glob("*.yaml")}
    return dict(sorted({**shipped, **own}.items()))


def known_site(name: str, start: FilePath) -> KnownSite:
    """Return the site of this name.

    Raises:
        SpecError: There is none.
    """
    sites = known_sites(start)
    if name not in sites:
        raise SpecError(
            [Problem(f"unknown site `{name}`", hint=did_you_mean(name, sites), kind="unknown_site")]
        )
    return sites[name]
