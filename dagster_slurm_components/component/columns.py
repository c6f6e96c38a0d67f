"""Dagster's own metadata of tables in YAML: columns and what they are made from, in the words of Pipes."""

from collections.abc import Callable, Mapping
from operator import index
from typing import Any

import dagster as dg


def with_columns(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a definition, with Dagster's objects where columns are written out.

    Raises:
        ValueError: One is written otherwise: Dagster (1.13) would load nothing of the code location, and name no asset.
    """
    made = dict(metadata)
    for name in [name for name in _READERS if name in made and not isinstance(made[name], _READ)]:
        read, example = _READERS[name]
        try:
            made[name] = read(made[name])
        except (AttributeError, KeyError, TypeError):
            raise ValueError(f"`{name}` is written as `{example}`") from None
    return made


def _schema(value: Mapping[str, Any]) -> dg.TableSchema:
    def column(words: Mapping[str, Any]) -> dg.TableColumn:
        constraints = dg.TableColumnConstraints(**words.get("constraints") or {})
        return dg.TableColumn(**{**words, "constraints": constraints})

    return dg.TableSchema([*map(column, value["columns"])])


def _lineage(value: Mapping[str, Any]) -> dg.TableColumnLineage:
    def source(words: Mapping[str, Any]) -> dg.TableColumnDep:
        return dg.TableColumnDep(words["asset_key"].split("/"), words["column_name"])

    columns = value["deps_by_column"].items()
    return dg.TableColumnLineage({name: [*map(source, deps)] for name, deps in columns})


_READ = (dg.TableSchema, dg.TableColumnLineage, dg.MetadataValue)
_READERS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "dagster/column_schema": (_schema, "{columns: [{name: x, type: int}]}"),
    "dagster/column_lineage": (_lineage, "{deps_by_column: {x: [{asset_key: a, column_name: y}]}}"),
    **dict.fromkeys(("dagster/row_count", "dagster/partition_row_count"), (index, "3")),
    **dict.fromkeys(("dagster/table_name", "dagster/relation_identifier"), (str, "a.b")),
    "dagster/storage_kind": (str, "duckdb"),
}
"""How Dagster's names are read (1.13, `TableMetadataSet`), and an example of each."""
