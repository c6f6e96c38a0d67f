"""What a Python asset gets that takes a script's asset as an argument: what the payload reported of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from types import NoneType
from typing import Any, get_args, get_origin

import dagster as dg

REPORTED = "slurm_script"
"""The key of the IO manager of scripts' assets."""
_NAME = "value"
"""The key in an input's metadata that names the one value that it asks for."""
_NOT_FINITE = frozenset({"nan", "inf", "-inf"})
"""How metadata show numbers that are not finite, for JSON has none."""
_PATHS = (dg.PathMetadataValue, dg.NotebookMetadataValue)
_PAGE = 500
"""Partitions whose events are read at once. Dagster's SQLite takes some 30 ms for each query, however small (1.13)."""


class ReportedValues(dg.IOManager):
    """Loads what was reported in the newest materialization of an asset, from Dagster's database."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Store nothing; Dagster calls it for values alone, and a script's step yields none."""

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the reported values by name, or the one that the input's metadata or its type asks for.

        Of several partitions it is a dictionary by partition key. The figures of the job have to be asked for by name.

        Raises:
            Failure: There is no materialization, or not that one value; it says what to do.
        """
        kind, may_miss = context.dagster_type.typing_type, False
        several = context.has_asset_partitions and len(context.asset_partition_keys) != 1
        if NoneType in get_args(kind):
            kind, may_miss = get_args(kind)[0], True
        if several and not _is_mapping(kind):
            what = context.asset_key.to_user_string()
            raise _refusal(f"Several partitions of `{what}` are asked for: write `dict[str, {_word(kind)}]`.")
        if several:
            kind = (get_args(kind) or [Any])[-1]
        values = {}
        for partition, made in _newest(context):
            try:
                values[partition] = _value(context, partition, made, kind)
            except LookupError as exc:
                if not may_miss and not context.definition_metadata.get("allow_missing_partitions"):
                    raise _refusal(exc.args[0]) from None
        return values if several else next(iter(values.values()), None)


def _newest(context: dg.InputContext) -> Iterator[tuple[str | None, dg.AssetMaterialization | None]]:
    """Yield the newest materialization of each partition, or of an asset that has none; of many a page is in memory."""
    instance, key = context.instance, context.asset_key
    if not context.has_asset_partitions:
        newest = instance.get_latest_materialization_event(key)
        yield None, newest.asset_materialization if newest else None
        return
    keys, kind = context.asset_partition_keys, dg.DagsterEventType.ASSET_MATERIALIZATION
    for page in (keys[start : start + _PAGE] for start in range(0, len(keys), _PAGE)):
        ids = [*instance.get_latest_storage_id_by_partition(key, kind, {*page}).values()]
        wanted = dg.AssetRecordsFilter(key, storage_ids=ids)
        records = instance.fetch_materializations(wanted, limit=len(ids)).records if ids else []
        made = {record.partition_key: record.asset_materialization for record in records}
        yield from ((each, made.get(each)) for each in page)


def _value(context: dg.InputContext, key: str | None, made: dg.AssetMaterialization | None, kind: Any) -> Any:
    """Return the values of one materialization, or the one that is asked for; a LookupError says what is missing."""
    what, name = f"`{context.asset_key.to_user_string()}`", context.definition_metadata.get(_NAME)
    what += "" if key is None else f" in partition `{key}`"
    if made is None:
        raise LookupError(f"{what} was never materialized, so nothing is reported of it: materialize it.")
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
    text = (
        f"{f'`{name}`' if name else f'One {_word(kind)}'} is asked for of {what}, whose newest materialization "
        f"reports {', '.join(f'`{each}`' for each in reported) or 'nothing'}. Name the value that is meant, by "
        f'`dg.AssetIn(metadata={{"{_NAME}": NAME}})`, or take all of them, as a `dict`.'
    )
    raise _refusal(text) if meant else LookupError(text)


def _refusal(text: str) -> dg.Failure:
    """Return the error for what another try of the step would not change."""
    return dg.Failure(text, allow_retries=False)


def _word(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))  # a union has no name


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
