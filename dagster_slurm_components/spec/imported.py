"""Payloads that Dagster would import, and so run, whenever it loads the project."""

import ast
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


def imported_payloads(folder: Path, payloads: Collection[Path], skipped: frozenset[str]) -> Iterator[Problem]:
    """Yield the files below a folder that would work, as the scripts' ``payloads`` do, while Dagster imports them."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in skipped and not name.startswith("."))
        for file in (Path(root, name) for name in sorted(files) if name.endswith(".py")):
            if is_imported(file) and (line := works_on_import(file, is_payload=file in payloads)):
                message = (
                    "Dagster imports this file whenever it loads the project, and so would run the payload"
                )
                yield Problem(message, Position(str(file), line, 1), (), _HINT, "imported", "warning")


def works_on_import(file: Path, *, is_payload: bool) -> int | None:
    """Return the line at which a module opens Pipes while it is imported, or begins as a payload without a guard."""
    text = file.read_text("utf-8", "replace")
    if not is_payload and "open_dagster_pipes" not in text:
        return None
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None  # Dagster tells it
    return next(_opens_pipes(tree), 1 if is_payload and "__main__" not in text else None)


def _opens_pipes(tree: ast.AST) -> Iterator[int]:
    """Yield where Pipes is opened on import, that is, neither in a function nor below a guard."""
    for node in ast.iter_child_nodes(tree):
        function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if function or (isinstance(node, ast.If) and "__name__" in ast.dump(node.test)):
            continue
        if isinstance(node, ast.Call) and re.search(r"\bopen_dagster_pipes$", ast.unparse(node.func)):
            yield node.lineno
        yield from _opens_pipes(node)
