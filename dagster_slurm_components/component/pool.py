"""The concurrency pool that a profile gives to all scripts."""

from __future__ import annotations

import os
from pathlib import Path as FilePath

from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profiles import PROFILE_VARIABLE, profiles_folder, single_document
from dagster_slurm_components.spec.templates import render


def profile_pool(start: FilePath) -> str | None:
    """Return the pool of the profile that is chosen now, or None.

    Dagster knows pools from the definitions, so this one word of a profile is read when definitions are loaded. The
    rest of the profile is read when a script runs, and that is also when its mistakes are told: definitions must
    load on a machine that has none of the profile's secrets.

    Args:
        start: Where the search for ``profiles/`` begins.
    """
    folder = profiles_folder(start)
    name = os.environ.get(PROFILE_VARIABLE) or "local"
    file = folder / f"{name}.yaml" if folder else None
    if file is None or not file.is_file():
        return None
    try:
        document = single_document(file)
        pool = render(document.data.get("pool"), lambda path: document.position(("pool", *path)))
    except SpecError:
        return None
    return pool if isinstance(pool, str) and pool else None
