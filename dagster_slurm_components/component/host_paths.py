"""``HostPathIOManager``: files of scripts' outputs as values in Python, and values of Python as files."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
from upath import UPath

from dagster_slurm_components.component.value_files import AnyPath, load_value, refusal, write_value
from dagster_slurm_components.component.values import Made, load_each, name_of, output_of, value_of
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.spec.profiles import project_folder

_PART = ".part"
_LONGEST = 86_400.0
_LONGEST_NAME = 150


class HostPathIOManager(dg.ConfigurableIOManager):
    """Gives Python assets the files that scripts' jobs have made, and stores values of Python assets as files.

    A script's output arrives as a ``Path``, ``UPath``, ``str``, ``bytes``, ``dict`` or ``list`` (of JSON), or as a
    ``DataFrame`` of pandas or polars, as the argument's type says. It is brought from the profile in which it was made,
    checked by its hash, and kept in ``pull_to`` of that profile.

    A value is stored as ``base_path/KEY/value.EXT``, or below a folder for its partition, whole or not at all: a
    ``Path`` as a copy of its file or folder, a ``DataFrame`` as Parquet, text, bytes and JSON as such, and anything
    else as a pickle. Metadata ``path`` tells where, and ``stored_as`` what it is.

    Attributes:
        base_path: Where values are stored: a folder, which starts at the project's if it is relative, or a URL of
            fsspec (``s3://bucket/assets``), for which that file system's package has to be installed.
        project: A folder of the project, from which ``profiles/`` is looked for; by default that of the upstream
            script, or the working folder.

    Example:
        .. code-block:: python

            @dg.asset(ins={"model": dg.AssetIn(metadata={"output": "weights"}, input_manager_key="files")})
            def size(model: Path) -> int:
                return model.stat().st_size


            defs = dg.Definitions([size], resources={"files": HostPathIOManager()})
    """

    base_path: str = ".dagster-slurm/assets"
    project: str | None = None

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store a value.

        Raises:
            Failure: It is of several partitions, or can't be stored.
        """
        keys = context.asset_partition_keys if context.has_asset_partitions else [None]
        if len(keys) != 1:
            text = f"One value of `{context.asset_key.to_user_string()}` can't be stored for {len(keys)} partitions"
            raise refusal(f"{text}: let each have a run of its own, by `dg.BackfillPolicy.multi_run()`.")
        folder = self._folder(context, keys[0])
        file, what = _store(obj, folder)
        context.log.debug(f"Stored at {file}")
        if obj is not None:  # as Dagster's own: there may be nothing that was meant to be stored
            context.add_output_metadata({"path": dg.MetadataValue.path(str(file)), "stored_as": what})

    def load_input(self, context: dg.InputContext) -> Any:
        """Return a value that was stored, or an output of a job, as the argument's type; of several partitions by key.

        Raises:
            Failure: There is none, or it can't be had as that type; it says what to do.
            DagsterSlurmError: The output can't be brought.
        """
        if context.has_asset_key:
            return load_each(context, self._load)
        folder, what = self._folder(context, None), "/".join(context.get_identifier())
        return load_value(_stored(folder, "", what), context.dagster_type.typing_type, what)

    def _load(self, context: dg.InputContext, partition: str | None, made: Made, kind: Any) -> Any:
        start = Path(self.project) if self.project else None
        if {"value", "output"} & context.definition_metadata.keys():
            return value_of(context, partition, made, kind, start)
        what, folder = name_of(context, partition), self._folder(context, partition)
        told = made.metadata.get("path") if made else None
        path = str(told.value) if told else ""
        if made and "job/run_directory" in made.metadata and not path.startswith(f"{folder}/"):
            return output_of(context, made, kind, what, start)
        return load_value(_stored(folder, path, what), kind, what)

    def _folder(self, context: dg.InputContext | dg.OutputContext, partition: str | None) -> AnyPath:
        """Return where a value is: below each key a folder, which no other key and partition has."""
        base: AnyPath
        if "://" in self.base_path:
            base = UPath(self.base_path)
        else:
            project = project_folder(Path(self.project) if self.project else Path.cwd())
            base = project / Path(self.base_path).expanduser()
        if not context.has_asset_key:
            run, *rest = context.get_identifier()
            return base.joinpath(f"run={_escaped(run)}", *map(_escaped, rest))
        parts = [*map(_escaped, context.asset_key.path)]
        return base.joinpath(*parts, *([] if partition is None else [f"partition={_escaped(partition)}"]))


def _escaped(text: str) -> str:
    """Return a name for a folder that no other text has, and none of the files that lie beside it.

    >>> _escaped("a b/c"), _escaped(".."), _escaped("value.json"), _escaped("v1.2")
    ('a b%2Fc', '%2E.', 'value%2Ejson', 'v1.2')
    """
    name = quote(text, safe=" ,+@")
    if name.startswith((".", "value.")):
        name = name.replace(".", "%2E", 1)
    if len(name) <= _LONGEST_NAME:
        return name or "%"
    return f"{name[:_LONGEST_NAME]}%%{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _stored(folder: AnyPath, path: str, what: str) -> AnyPath:
    """Return the file of a stored value: the one that its materialization tells of, or the only one."""
    found = _values(folder)
    file = next((each for each in found if str(each) == path), None)
    if file is None and len(found) > 1:
        raise refusal(
            f"{what} has several values in {folder}, as storing one was cut off: materialize it again."
        )
    if not found:
        raise LookupError(f"There is no value of {what} in {folder}: materialize it.")
    return file or found[0]


def _values(folder: AnyPath) -> Sequence[AnyPath]:
    return [each for each in folder.iterdir() if each.name.startswith("value.")] if folder.is_dir() else []


def _store(value: object, folder: AnyPath) -> tuple[AnyPath, str]:
    """Write a value into its folder, whole or not at all; then remove one of another type that was there."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(os.fsencode(folder / ".lock"), _LONGEST):
            part = folder / _PART
            shutil.rmtree(part, ignore_errors=True)  # of one that was killed
            part.mkdir()
            try:
                file, what = write_value(value, part)
                if (final := folder / file.name).is_dir():  # which no rename replaces
                    final.rename(part / "old")
                file.rename(final)
                _remove_others(folder, final)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        return final, what
    with tempfile.TemporaryDirectory() as temporary:
        file, what = write_value(value, Path(temporary))
        target, files = folder / file.name, folder.fs
        name = f"{folder.path}/{_PART}-{os.path.basename(temporary)}"
        files.makedirs(folder.path, exist_ok=True)
        files.put(str(file), name, recursive=file.is_dir())
        if files.exists(target.path):
            files.rm(target.path, recursive=True)
        files.mv(name, target.path, recursive=file.is_dir())
        _remove_others(folder, target)
    return target, what


def _remove_others(folder: AnyPath, final: AnyPath) -> None:
    for other in (each for each in _values(folder) if each.name != final.name):
        if not isinstance(other, Path):
            other.fs.rm(other.path, recursive=True)
        elif other.is_dir():
            shutil.rmtree(other)
        else:
            other.unlink()
