"""Columns of tables: declared in YAML, and reported by payloads."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.definitions.metadata.metadata_set import TableMetadataSet

from dagster_slurm_components import ComputeResource
from dagster_slurm_components.component.columns import _READERS

SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn(
            "id", "int", "Number of a row.", dg.TableColumnConstraints(nullable=False, unique=True)
        ),
        dg.TableColumn("name", tags={"pii": ""}),
    ]
)
LINEAGE = dg.TableColumnLineage({"id": [dg.TableColumnDep(["lake", "raw"], "key")]})
DECLARED = """
payload: train.py
assets:
  - key: table
    deps: [lake/raw]
    metadata:
      dagster/column_schema:
        columns:
          - {name: id, type: int, description: Number of a row., constraints: {nullable: false, unique: true}}
          - {name: name, tags: {pii: ""}}
      dagster/column_lineage: {deps_by_column: {id: [{asset_key: lake/raw, column_name: key}]}}
      dagster/row_count: 3
      more: {columns: 2}
"""
REPORT = """
. pipes.sh
pipes_materialize table 'dagster/column_schema:table_schema={"columns": [
  {"name": "id", "type": "int", "description": "Number of a row.", "constraints": {"nullable": false, "unique": true}},
  {"name": "name", "type": "string", "tags": {"pii": ""}}]}' \\
  'dagster/column_lineage:table_column_lineage={"deps_by_column": {"id": [
  {"asset_key": "lake/raw", "column_name": "key"}]}}'
"""


def test_columns_are_declared(project):
    project.script(DECLARED)
    metadata = project.assets()["table"].metadata
    assert metadata["dagster/column_schema"] == SCHEMA
    assert metadata["dagster/column_lineage"] == LINEAGE
    assert (metadata["dagster/row_count"], metadata["more"]) == (3, {"columns": 2})


def test_columns_are_reported(project):
    project.write("report.sh", REPORT)
    project.script("{payload: report.sh, assets: [{key: table, deps: [lake/raw]}]}")
    defs = dg.Definitions.merge(project.load(), dg.Definitions(resources={"compute": ComputeResource()}))
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)
    (made,) = result.asset_materializations_for_node("table")
    assert made.metadata["dagster/column_schema"].value == SCHEMA
    assert made.metadata["dagster/column_lineage"].value == LINEAGE


@pytest.mark.parametrize(
    ("written", "example"),
    [
        ("dagster/column_schema: {colums: []}", "{columns: [{name: x, type: int}]}"),
        ("dagster/column_schema: {columns: [{nme: x}]}", "{columns: [{name: x, type: int}]}"),
        ("dagster/column_schema: {columns: [{name: x, tipe: x}]}", "{columns: [{name: x, type: int}]}"),
        ("dagster/column_schema: {columns: [x]}", "{columns: [{name: x, type: int}]}"),
        ("dagster/column_schema: [x]", "{columns: [{name: x, type: int}]}"),
        (
            "dagster/column_lineage: {deps_by_column: {x: [{asset_key: a}]}}",
            "{deps_by_column: {x: [{asset_key: a, column_name: y}]}}",
        ),
        ("dagster/row_count: many", "3"),
        ("dagster/partition_row_count: 3.5", "3"),
    ],
)
@pytest.mark.parametrize(
    "of",
    [
        "assets: [{key: a, metadata: {%s}}]",
        "assets: [{key: a}], checks: [{name: c, asset: a, metadata: {%s}}]",
    ],
)
def test_what_dagster_would_not_load_is_told(project, written, example, of):
    """Its own error names no asset, and nothing of the code location is there then."""
    project.script(f"{{payload: train.py, {of % written}}}")
    name = written.split(":")[0]
    assert project.mistakes() == [f"4: `{name}` is written as `{example}`"]


def test_the_names_are_dagsters():
    names = {*TableMetadataSet.model_fields, *TableMetadataSet.current_key_by_legacy_key()}
    assert {f"dagster/{name}" for name in names} == _READERS.keys()
