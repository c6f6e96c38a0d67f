"""Values as files: what a file is as a value of a type, and how a value of Python is written."""

import io
import json
import math
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any, TypeAlias, get_origin

import dagster as dg
from upath import UPath

AnyPath: TypeAlias = Path | UPath
FILE, FOLDER = "value.file", "value.folder"
"""How the names of those values begin that are files and folders themselves."""
_TABLES: Mapping[str, Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    ".parquet": {"pandas": ("read_parquet", {}), "polars": ("read_parquet", {})},
    ".csv": {"pandas": ("read_csv", {}), "polars": ("read_csv", {})},
    ".tsv": {"pandas": ("read_csv", {"sep": "\t"}), "polars": ("read_csv", {"separator": "\t"})},
    ".json": {"pandas": ("read_json", {}), "polars": ("read_json", {})},
    ".jsonl": {"pandas": ("read_json", {"lines": True}), "polars": ("read_ndjson", {})},
    ".ndjson": {"pandas": ("read_json", {"lines": True}), "polars": ("read_ndjson", {})},
    ".feather": {"pandas": ("read_feather", {}), "polars": ("read_ipc", {})},
}
"""What reads a table of each library, by the suffix of its file."""
_READERS: Mapping[Any, Callable[[bytes], Any]] = {
    bytes: bytes,
    str: lambda data: data.decode("utf-8", "surrogatepass"),
    **dict.fromkeys((dict, list, Mapping, Sequence), json.loads),
}
_OWN: Mapping[str, Callable[[bytes], Any]] = {
    "value.txt": _READERS[str],
    "value.bin": bytes,
    "value.json": json.loads,
    "value.pickle": pickle.loads,
}
"""What reads a value that was written here, by the name of its file."""
_CAN_BE = "`Path`, `UPath`, `str`, `bytes`, `dict` or `list` (JSON), a `DataFrame` of pandas or polars"


def refusal(text: str) -> dg.Failure:
    """Return the error for what another try of the step would not change."""
    return dg.Failure(text, allow_retries=False)


def word(kind: Any) -> str:
    """Return a type as it is written."""
    return getattr(kind, "__name__", str(kind))  # a union has no name


def means_file(kind: Any) -> bool:
    """Return whether a type can be nothing but a file, or what is in one."""
    return _is_path(kind) or _library(kind) is not None


def load_file(path: AnyPath, kind: Any, what: str) -> Any:
    """Return a file, or a folder, as a value of a type; an argument without a type gets the path.

    Raises:
        Failure: It is no such value.
    """
    plain = get_origin(kind) or kind
    if plain in (Any, object):
        return path
    if _is_path(plain):
        return _path(path, plain, what)
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    try:
        if library := _library(plain):
            return _table(files, library, what)
        if plain not in _READERS:
            raise refusal(f"{what} can't be had as `{word(kind)}`. It can be {_CAN_BE}.")
        if len(files) != 1:
            raise refusal(
                f"{what} has {len(files)} files, and no single `{word(kind)}`: take it as a `Path`."
            )
        return _READERS[plain](files[0].read_bytes())
    except ValueError as exc:
        raise refusal(f"{what} can't be read as `{word(kind)}`: {exc}\nIt is {path}") from exc


def load_value(file: AnyPath, kind: Any, what: str) -> Any:
    """Return what ``write_value`` has written, as it was, or as a file or table where the type says so.

    Raises:
        Failure: It is no such value.
    """
    reader = _OWN.get(file.name)
    if _is_path(kind) or file.name.startswith((FILE, FOLDER)) or (reader is None and means_file(kind)):
        return load_file(file, kind, what)
    if reader is not None:
        return reader(file.read_bytes())
    return _table([file], file.name.split(".")[1], what)


def write_value(value: object, folder: Path) -> tuple[Path, str]:
    """Write a value into a folder; return the file, whose name tells what it is, and what it is for people.

    Raises:
        Failure: It is a path to nothing, or a table that can't be written.
    """
    if isinstance(value, Path):
        return _copy(value, folder)
    if library := _library(type(value)):
        return _write_table(value, library, folder)
    form, data = "pickle", b""
    if type(value) is str:
        form, data = "txt", value.encode("utf-8", "surrogatepass")
    elif type(value) is bytes:
        form, data = "bin", value
    elif _is_json(value):
        form, data = "json", json.dumps(value).encode()
    else:
        data = pickle.dumps(value)
    file = folder / f"value.{form}"
    file.write_bytes(data)
    told = {"txt": "text", "bin": "bytes", "json": "JSON"}
    return file, told.get(form, f"pickle of a `{type(value).__qualname__}`: only Python can read it")


def _is_path(kind: Any) -> bool:
    kind = get_origin(kind) or kind
    return isinstance(kind, type) and issubclass(kind, (PurePath, UPath))


def _library(kind: Any) -> str | None:
    """Return whose `DataFrame` a type is."""
    module = str(getattr(kind, "__module__", "")).partition(".")[0]
    return module if module in ("pandas", "polars") and word(kind) == "DataFrame" else None


def _path(path: AnyPath, kind: Any, what: str) -> Any:
    if issubclass(kind, UPath):
        return UPath(path)
    if not isinstance(path, Path):
        raise refusal(f"{what} is at {path}, which is no path of this machine: take it as a `UPath`.")
    return path if isinstance(path, kind) else kind(path)


def _table(files: Sequence[AnyPath], library: str, what: str) -> Any:
    suffixes = {file.suffix.lower() for file in files}
    if len(suffixes) != 1 or not suffixes <= _TABLES.keys():
        has, known = (
            ", ".join(sorted(f"`{each}`" for each in suffixes)),
            ", ".join(f"`{each}`" for each in _TABLES),
        )
        raise refusal(f"{what} is no table: it has files {has}, and all have to be one of {known}.")
    module, (function, options) = import_module(library), _TABLES[suffixes.pop()][library]
    tables = [getattr(module, function)(io.BytesIO(file.read_bytes()), **options) for file in files]
    if len(tables) == 1:
        return tables[0]
    return module.concat(tables, **({"ignore_index": True} if library == "pandas" else {}))


def _write_table(table: Any, library: str, folder: Path) -> tuple[Path, str]:
    file = folder / f"value.{library}.parquet"
    if library == "polars":
        table.write_parquet(file)
    elif find_spec("pyarrow"):
        table.to_parquet(file)
    elif not table.index.equals(type(table)(index=range(len(table))).index):
        raise refusal("A table whose index is not 0, 1, 2... can't be stored as CSV: install pyarrow.")
    else:
        table.to_csv(file := file.with_suffix(".csv"), index=False)
        return file, "CSV, as there is no pyarrow: the types of its columns are guessed when it is loaded"
    return file, "Parquet"


def _copy(path: Path, folder: Path) -> tuple[Path, str]:
    if not path.exists():
        raise refusal(f"{path.absolute()} is to be stored, and is not there.")
    if path.is_dir():
        if folder.resolve().is_relative_to(path.resolve()):
            raise refusal(f"{path.absolute()} can't be stored in a folder of its own, {folder}.")
        return Path(shutil.copytree(path, folder / FOLDER)), "folder"
    suffixes = "".join(path.suffixes[-2:])
    file = folder / f"{FILE}{suffixes if len(suffixes) <= 40 else ''}"
    return Path(shutil.copy2(path, file)), "file"


def _is_json(value: object) -> bool:
    """Return whether JSON gives back the same, of the same types."""
    if type(value) is dict:
        return all(type(key) is str and _is_json(each) for key, each in value.items())
    if type(value) is list:
        return all(map(_is_json, value))
    return value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))
