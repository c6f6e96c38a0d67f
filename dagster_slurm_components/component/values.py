"""What a Python asset gets that takes a script's asset as an argument: what was reported of it, or its files."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from types import NoneType
from typing import Any, get_args, get_origin

import dagster as dg

from dagster_slurm_components.component.value_files import load_file, means_file, refusal, word
from dagster_slurm_components.pipes.newest import newest_of

REPORTED = "slurm_script"
"""The key of the IO manager of scripts' assets."""
_NAME, _OUTPUT = "value", "output"
"""The keys in an input's metadata that name the one value, or the output, that it asks for."""
_NOT_FINITE = frozenset({"nan", "inf", "-inf"})
"""How metadata show numbers that are not finite, for JSON has none."""
_PATHS = (dg.PathMetadataValue, dg.NotebookMetadataValue)
Made = dg.AssetMaterialization | None
Load = Callable[[dg.InputContext, str | None, Made, Any], Any]
"""What makes a value of a partition's newest materialization, for a type; a LookupError says what is missing."""


class ReportedValues(dg.IOManager):
    """Loads what was reported in the newest materialization of an asset, from Dagster's database."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Store nothing; Dagster calls it for values alone, and a script's step yields none."""

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the reported values by name, or the one that the input's metadata or its type asks for.

        Of several partitions it is a dictionary by partition key. The figures of the job have to be asked for by name.
        Where the input's metadata name an output, or its type means a file and no such value was reported, it is that
        output's files, brought to this machine.

        Raises:
            Failure: There is no materialization, or not that one value; it says what to do.
            DagsterSlurmError: The output can't be brought.
        """
        return load_each(context, value_of)


def load_each(context: dg.InputContext, load: Load) -> Any:
    """Return what ``load`` makes of an asset's newest materialization, or of several partitions' a dictionary by key.

    Raises:
        Failure: Something is missing that may not be.
    """
    kind, may_miss = context.dagster_type.typing_type, False
    several = context.has_asset_partitions and len(context.asset_partition_keys) != 1
    if NoneType in get_args(kind):
        kind, may_miss = get_args(kind)[0], True
    if several and not _is_mapping(kind):
        what = context.asset_key.to_user_string()
        raise refusal(f"Several partitions of `{what}` are asked for: write `dict[str, {word(kind)}]`.")
    if several:
        kind = (get_args(kind) or [Any])[-1]
    values = {}
    partitions = context.asset_partition_keys if context.has_asset_partitions else [None]
    for partition, made in newest_of(context.instance, context.asset_key, partitions):
        try:
            values[partition] = load(context, partition, made, kind)
        except LookupError as exc:
            if not may_miss and not context.definition_metadata.get("allow_missing_partitions"):
                raise refusal(exc.args[0]) from None
    return values if several else next(iter(values.values()), None)


def name_of(context: dg.InputContext, partition: str | None) -> str:
    """Return what an input is of, for messages."""
    return f"`{context.asset_key.to_user_string()}`" + (
        "" if partition is None else f" in partition `{partition}`"
    )


def value_of(
    context: dg.InputContext, partition: str | None, made: Made, kind: Any, project: Path | None = None
) -> Any:
    """Return the values of one materialization, the one that is asked for, or an output."""
    what, name = name_of(context, partition), context.definition_metadata.get(_NAME)
    if made is None:
        raise LookupError(f"{what} was never materialized, so nothing is reported of it: materialize it.")
    output = context.definition_metadata.get(_OUTPUT)
    if output is not None and name is not None:
        raise refusal(f"An input of {what} names a `{_NAME}` and an `{_OUTPUT}`: it can be one of both.")
    if output is not None:
        return output_of(context, made, kind, what, project)
    values: dict[str, Any] = {each: value.value for each, value in made.metadata.items()}
    values |= {each: Path(values[each]) for each, value in made.metadata.items() if isinstance(value, _PATHS)}
    reported = {each: value for each, value in values.items() if not each.startswith(("job/", "output/"))}
    if name is None and _is_mapping(kind):
        return reported
    meant = [name] if name in values else []
    if name is None:
        meant = [each for each, value in reported.items() if _fits(kind, value)]
    if len(meant) == 1:
        return _as(kind, values[meant[0]])
    if name is None and not meant and means_file(kind) and any(each.startswith("output/") for each in values):
        return output_of(context, made, kind, what, project)
    text = (
        f"{f'`{name}`' if name else f'One {word(kind)}'} is asked for of {what}, whose newest materialization "
        f"reports {', '.join(f'`{each}`' for each in reported) or 'nothing'}. Name the value that is meant, by "
        f'`dg.AssetIn(metadata={{"{_NAME}": NAME}})`, or take all of them, as a `dict`.'
    )
    raise refusal(text) if meant else LookupError(text)


def output_of(
    context: dg.InputContext, made: dg.AssetMaterialization, kind: Any, what: str, project: Path | None = None
) -> Any:
    """Return an output as a type: the one that the input's metadata name, or the only one."""
    # Imported on use: loading definitions needs nothing of what speaks to hosts.
    from dagster_slurm_components.pipes.bring import bring, outputs_of  # noqa: PLC0415

    outputs, name = outputs_of(made.metadata), context.definition_metadata.get(_OUTPUT)
    if not outputs or name not in (None, *outputs):
        wanted = "An output" if name is None else f"Output `{name}`"
        has = ", ".join(f"`{each}`" for each in outputs) or "no outputs"
        raise LookupError(f"{wanted} is asked for of {what}, whose newest materialization has {has}.")
    if name is None and len(outputs) > 1:
        several = ", ".join(f"`{each}`" for each in outputs)
        text = f'{what} has the outputs {several}. Name one, by `dg.AssetIn(metadata={{"{_OUTPUT}": NAME}})`.'
        raise refusal(text)
    output = outputs[name or next(iter(outputs))]
    path = bring(output, project or _project(context), context.log.info)
    return load_file(path, kind, f"Output `{output.name}` of {what}")


def _project(context: dg.InputContext) -> Path:
    """Return a folder of the project: that of the script, which its asset's links to code tell, or where we are."""
    upstream = context.upstream_output
    value = (upstream.definition_metadata if upstream else {}).get("dagster/code_references")
    links = value.code_references if isinstance(value, dg.CodeReferencesMetadataValue) else []
    folders = [Path(each.file_path).parent for each in links if isinstance(each, dg.LocalFileCodeReference)]
    return next((each for each in folders if each.is_dir()), Path.cwd())


def _is_mapping(kind: Any) -> bool:
    """Return whether a type takes all values: that of an argument without a type does."""
    return kind in (Any, object) or (get_origin(kind) or kind) in (dict, Mapping)


def _fits(kind: Any, value: object) -> bool:
    """Return whether a value may be meant by a type. Numbers are all alike, for 1.0 may be reported as 1."""
    is_number = type(value) in (int, float) or (isinstance(value, str) and value in _NOT_FINITE)
    if is_number or kind in (int, float):
        return is_number and kind in (int, float)
    kind = get_origin(kind) or kind
    return isinstance(value, PurePath if issubclass(kind, PurePath) else kind)


def _as(kind: Any, value: Any) -> Any:
    """Return a value as the type that it is wanted in, where it can be; else Dagster tells that it is another."""
    if kind is float and _fits(float, value):
        return float(value)
    is_path = isinstance(kind, type) and issubclass(kind, PurePath)
    return kind(value) if is_path and isinstance(value, str | PurePath) else value
