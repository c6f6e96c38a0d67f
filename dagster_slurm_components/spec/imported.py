"""Payloads that Dagster would import, and so run, whenever it loads the project."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dagster_slurm_components.spec.check_script import CheckedScript
from dagster_slurm_components.spec.component import FILE_NAMES
from dagster_slurm_components.spec.place import Position
from dagster_slurm_components.spec.problems import Problem
from dagster_slurm_components.spec.templates import is_template

_DEFS = "defs"
_HINT = (
    'write what it does below `if __name__ == "__main__":`, or keep it where Dagster imports nothing: below the folder '
    "of a component's `defs.yaml`, or outside of `defs`, as in `workloads/`"
)
_ONLY_A_FOLDER = re.compile(r"^type:\s*['\"]?[\w.]*DefsFolderComponent\b", re.MULTILINE)


def is_imported(file: Path) -> bool:
    """Whether Dagster's loader of a `defs` folder imports a file (1.13).

    It imports each module below, but for those in a folder whose component is written in YAML, and what lies below
    that; hidden folders are left out.
    """
    folders = []
    for folder in file.parents:
        folders.append(folder)
        if folder.name == _DEFS:
            break
    else:
        return False
    return file.suffix == ".py" and not any(map(_ends_the_search, folders))


def _ends_the_search(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name == "__pycache__":
        return True
    written = next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)
    return written is not None and not _ONLY_A_FOLDER.search(written.read_text("utf-8", "replace"))


def imported_payload(script: CheckedScript) -> Iterator[Problem]:
    """Yield a script's payload that Dagster would import, and that has no guard against that."""
    merged, payload = script.merged, script.merged.data.get("payload")
    if not isinstance(payload, str) or not payload.endswith(".py") or is_template(payload):
        return
    file = Path(os.path.abspath((merged.folder(("payload",)) or script.entry.folder) / payload))
    if is_imported(file) and file.is_file() and not _guarded(file):
        message = f"Dagster imports {file}, and so runs it, whenever it loads the project"
        yield Problem.at(merged.position, ("payload",), message, _HINT, "imported", level="warning")


def _guarded(file: Path) -> bool:
    text = file.read_text("utf-8", "replace")
    return "__main__" in text or reports_on_import(file) is not None  # that is told where it stands


def imported_payloads(folder: Path, skipped: frozenset[str]) -> Iterator[Problem]:
    """Yield the payloads below a folder that would report to Dagster while it imports them."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in skipped and not name.startswith("."))
        for file in (Path(root, name) for name in sorted(files)):
            if file.suffix == ".py" and is_imported(file) and (line := reports_on_import(file)):
                message = (
                    "Dagster imports this file whenever it loads the project, and so would run the payload"
                )
                yield Problem(message, Position(str(file), line, 1), (), _HINT, "imported", "warning")


def reports_on_import(file: Path) -> int | None:
    """Return the line at which a module calls ``open_dagster_pipes`` while it is imported."""
    text = file.read_text("utf-8", "replace")
    if "open_dagster_pipes" not in text:
        return None
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None  # Dagster tells it
    return next((node.lineno for node in _on_import(tree) if _opens_pipes(node)), None)


def _on_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what is executed on import, that is, neither in a function nor below a guard."""
    for node in ast.iter_child_nodes(tree):
        function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        guard = isinstance(node, ast.If) and "__name__" in ast.dump(node.test)
        if not (function or guard):
            yield node
            yield from _on_import(node)


def _opens_pipes(node: ast.AST) -> bool:
    called = node.func if isinstance(node, ast.Call) else None
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name == "open_dagster_pipes"
