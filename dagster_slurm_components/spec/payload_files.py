"""Which files travel with a script, and where they lie in its payload folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from dagster_slurm_components.spec.base import mistake


def place(pattern: str) -> PurePosixPath:
    """Return where a path of a YAML file lies below the payload folder: itself, without leading ``..``.

    >>> str(place("../../workloads/train.py"))
    'workloads/train.py'
    """
    parts = PurePosixPath(pattern).parts
    while parts and parts[0] in ("..", "."):
        parts = parts[1:]
    return PurePosixPath(*parts)


def matches(folder: Path, pattern: str) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield the files that a path or glob pattern of a YAML file names, each with its place in the payload folder.

    A folder stands for all files below it; caches of Python and hidden files of version control are left out.

    Args:
        folder: Where relative patterns start.
        pattern: A path, or a glob with ``*``, ``?``, ``[...]`` and ``**``.
    """
    parts = PurePosixPath(pattern).parts
    fixed = [part for part in parts[: _wild(parts)]]
    root = folder.joinpath(*fixed)
    prefix = PurePosixPath(root.name) if root.is_file() else place(str(PurePosixPath(*fixed)))
    rest = parts[len(fixed) :]
    if PurePosixPath(pattern).is_absolute():
        prefix = PurePosixPath()
    found = root.glob(str(PurePosixPath(*rest))) if rest else iter([root])
    for path in sorted(found):
        for file in _files(path):
            yield (place(pattern) if file == root else prefix / file.relative_to(root).as_posix()), file


def _wild(parts: Sequence[str]) -> int:
    """Return the index of the first part that is a pattern."""
    return next((i for i, part in enumerate(parts) if any(mark in part for mark in "*?[")), len(parts))


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and not {"__pycache__", ".git"}.intersection(file.relative_to(path).parts):
                yield file


def payload_files(folder: Path, payload: str | None, patterns: Sequence[str]) -> Mapping[PurePosixPath, Path]:
    """Return the files of a script by their place in its payload folder.

    Raises:
        PydanticCustomError: A pattern without a file, or two files for one place; the message says which.
    """
    found: dict[PurePosixPath, Path] = {}
    for pattern in ([payload] if payload else []) + list(patterns):
        files = list(matches(folder, pattern))
        if not files:
            raise mistake(f"no file matches {pattern!r} in {folder}", "check the spelling; paths start there")
        for where, file in files:
            other = found.setdefault(where, file)
            if other.resolve() != file.resolve():
                raise mistake(f"both {other} and {file} would travel as {where}", "rename one of them")
    return found
