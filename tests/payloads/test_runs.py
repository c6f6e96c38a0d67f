"""What Dagster has of payloads in bash and R that report by the helpers of their job."""

# ruff: noqa: E501 - programs in other languages

import shutil
from typing import Any

import dagster as dg
import pytest
from project_fixture import Project, failure_text
from reports_fixture import evaluations, log, run_python, stored_evaluations, warnings

import slurm_testcluster as slurm
from dagster_slurm_components import ComputeResource

BASH = """
set -euo pipefail
. pipes.sh
pipes_log "from $(pipes_partition_key)" ERROR
pipes_progress 1 2 half
pipes_check a/b fine true --severity WARN rows=3
pipes_check a/b bad false --severity WARN
pipes_materialize a/b --data-version v1 rows=3 share=0.5 word=text \\
    t:text=3 u:url=http://localhost/ p:path=/tmp/x n:notebook=/tmp/x.ipynb j:json='{"a": [1]}' m:md='# *hi*' f:float=2 i:int=4 \\
    b:bool=true r:dagster_run=0 a:asset=a/b z:null= s:timestamp=1770000000 nan:float=nan \\
    'table:table={"records": [{"x": 1}], "schema": [{"name": "x", "type": "int"}]}' \\
    'schema:table_schema={"columns": [{"name": "x", "type": "int"}]}' \\
    'lineage:table_column_lineage={"deps_by_column": {"x": [{"asset_key": "up", "column_name": "y"}]}}'
"""

R = """
source(file.path(Sys.getenv("DAGSTER_SLURM_LIB"), "pipes.R"))
typed <- pipes_metadata
pipes_log(paste("from", pipes_partition_key()), "ERROR")
pipes_progress(1, 2, "half")
pipes_check("a/b", "fine", TRUE, "WARN", list(rows = 3L))
pipes_check("a/b", "bad", FALSE, "WARN")
pipes_materialize("a/b", data_version = "v1", metadata = list(
  rows = 3L, share = 0.5, word = "text", t = typed("3", "text"), u = typed("http://localhost/", "url"),
  p = typed("/tmp/x", "path"), n = typed("/tmp/x.ipynb", "notebook"), j = list(a = I(1L)), m = typed("# *hi*", "md"), f = 2,
  i = 4L, b = TRUE, r = typed("0", "dagster_run"), a = typed("a/b", "asset"), z = NA, s = typed(1770000000, "timestamp"),
  nan = NaN, table = data.frame(x = 1L), schema = typed(list(columns = list(list(name = "x", type = "int"))), "table_schema"),
  lineage = typed(list(deps_by_column = list(x = list(list(asset_key = "up", column_name = "y")))), "table_column_lineage")))
"""

TYPES: dict[str, tuple[type[dg.MetadataValue[Any]], Any]] = {
    "rows": (dg.IntMetadataValue, 3),
    "share": (dg.FloatMetadataValue, 0.5),
    "word": (dg.TextMetadataValue, "text"),
    "t": (dg.TextMetadataValue, "3"),
    "u": (dg.UrlMetadataValue, "http://localhost/"),
    "p": (dg.PathMetadataValue, "/tmp/x"),
    "n": (dg.NotebookMetadataValue, "/tmp/x.ipynb"),
    "j": (dg.JsonMetadataValue, {"a": [1]}),
    "m": (dg.MarkdownMetadataValue, "# *hi*"),
    "f": (dg.FloatMetadataValue, 2.0),
    "i": (dg.IntMetadataValue, 4),
    "b": (dg.BoolMetadataValue, True),
    "r": (dg.DagsterRunMetadataValue, "0"),
    "a": (dg.DagsterAssetMetadataValue, dg.AssetKey(["a", "b"])),
    "z": (dg.NullMetadataValue, None),
    "s": (dg.TimestampMetadataValue, 1770000000.0),
    "nan": (dg.TextMetadataValue, "nan"),
    "table": (dg.TableMetadataValue, None),
    "schema": (dg.TableSchemaMetadataValue, None),
    "lineage": (dg.TableColumnLineageMetadataValue, None),
}


@pytest.mark.slurm
@pytest.mark.parametrize("profile", ["local", "staging"])
@pytest.mark.parametrize(("name", "code"), [("report.sh", BASH), ("report.R", R)], ids=["bash", "R"])
def test_results_of_all_kinds_arrive_without_a_warning(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, profile: str, name: str, code: str
) -> None:
    assert shutil.which("Rscript"), "`make test` installs r-base-core"
    project.staging(cluster)
    project.write(name, "").write_text(code)
    project.scripts(
        f"scripts:\n  - payload: {name}\n"
        "    assets: [{key: a/b, partitions_def: {type: static, partition_keys: ['k 1']}}]\n"
        "    checks: [{name: fine, asset: a/b}, {name: bad, asset: a/b}]\n"
    )
    result = project.run(profile, instance=instance, partition_key="k 1")
    assert result.success, failure_text(result)
    (event,) = result.get_asset_materialization_events()
    materialization = event.materialization
    assert materialization.tags is not None
    assert materialization.tags["dagster/data_version"] == "v1"
    for metadata, (type_, value) in TYPES.items():
        found = materialization.metadata[metadata]
        assert isinstance(found, type_), metadata
        assert value is None or found.value == value
    assert materialization.metadata["table"].records[0].data == {"x": 1}
    assert evaluations(instance, result) == {"fine": True, "bad": False}
    assert {each.severity.value for each in stored_evaluations(instance, result)} == {"WARN"}
    # The one that the payload itself logged as an error, and no other above the level of information.
    assert warnings(instance, result) == ["from k 1"]
    assert "50 % (1 of 2): half" in log(instance, result)


EXTRAS = {
    "plain": "text",
    "number": 1.5,
    "list": [1, "a\tb"],
    "odd \t name\\": "two\nlines\r\n\\t \\\\n and a tab\t; $(id) é",
    "empty": "",
}
ASK = {
    "sh": '. pipes.sh; pipes_materialize a "value:text=$(pipes_extra "$1")" "other:text=$(pipes_extra none default)"\n',
    "R": 'source(file.path(Sys.getenv("DAGSTER_SLURM_LIB"), "pipes.R"))\nname <- commandArgs(TRUE)[1]\n'
    'pipes_materialize("a", list(value = pipes_extra(name), other = pipes_extra("none", "default")))\n',
}


@pytest.mark.parametrize("suffix", ["sh", "R"])
@pytest.mark.parametrize("name", list(EXTRAS))
def test_extras_arrive_as_text_or_json(
    project: Project, instance: dg.DagsterInstance, suffix: str, name: str
) -> None:
    if suffix == "R" and shutil.which("Rscript") is None:
        pytest.skip("there is no Rscript on this machine")
    payload = str(project.write(f"ask.{suffix}", ASK[suffix]))

    @dg.asset
    def a(context: dg.AssetExecutionContext, compute: ComputeResource) -> Any:
        done = compute.run(context=context, payload_path=payload, args=[name], extras=EXTRAS)
        yield from done.get_results()

    result = run_python(project, instance, a)
    assert result.success, failure_text(result)
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    said = {"number": "1.5", "list": '[1, "a\\tb"]'}
    assert metadata["value"].value == said.get(name, EXTRAS[name])
    assert metadata["other"].value == "default"
    assert warnings(instance, result) == []
