"""Payloads that Dagster would import, and so run, whenever it loads the project."""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from dagster_slurm_components.spec.component import FILE_NAMES
from dagster_slurm_components.spec.place import Position
from dagster_slurm_components.spec.problems import Problem

_HINT = (
    'write what it does below `if __name__ == "__main__":`, or keep it where Dagster imports nothing: below the folder '
    "of a component's `defs.yaml`, or outside of `defs`, as in `workloads/`"
)
_OPENS = re.compile(r"^(?!\s*#).*\bopen_dagster_pipes\(", re.MULTILINE)
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist", "venv"})
_ONLY_A_FOLDER = re.compile(r"^type:\s*['\"]?[\w.]*DefsFolderComponent\b", re.MULTILINE)


def is_imported(file: Path) -> bool:
    """Whether Dagster's loader of a ``defs`` folder imports a file (1.13).

    It imports each module below, but for those beside or below a component that is written in YAML.
    """
    names = [folder.name for folder in file.parents]
    if file.suffix != ".py" or "defs" not in names:
        return False
    return not any(map(_ends_the_search, file.parents[: names.index("defs") + 1]))


def _ends_the_search(folder: Path) -> bool:
    written = next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)
    is_component = written is not None and not _ONLY_A_FOLDER.search(written.read_text("utf-8", "replace"))
    return is_component or folder.name.startswith(".")


def files_below(folder: Path, *endings: str) -> Iterator[Path]:
    """Yield the files below a folder whose names end so, without those of hidden folders, environments and builds."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("."))
        yield from (Path(root, name) for name in sorted(files) if name.endswith(endings))


def imported_payloads(folder: Path, payloads: Collection[Path | None]) -> Iterator[Problem]:
    """Yield the files below a folder that would work, as the scripts' ``payloads`` do, while Dagster imports them."""
    for file in files_below(folder, ".py"):
        if is_imported(file) and (line := works_on_import(file, is_payload=file in payloads)):
            message = "Dagster imports this file whenever it loads the project, and so would run the payload"
            yield Problem(message, Position(str(file), line, 1), (), _HINT, "imported", "warning")


def works_on_import(file: Path, *, is_payload: bool) -> int | None:
    """Return the line where a module without a guard opens Pipes, as when it is imported; or 1 of any payload."""
    text = file.read_text("utf-8", "replace")
    opens = _OPENS.search(text)
    if "__main__" in text or not (opens or is_payload):
        return None
    return text.count("\n", 0, opens.start()) + 1 if opens else 1
