"""Tables of pandas and polars as files, by a Python that has both beside this package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE

HEAD = """
import os
import sys
from pathlib import Path

import dagster as dg
import pandas as pd
import polars as pl

from dagster_slurm_components import HostPathIOManager
from dagster_slurm_components.component import value_files
from dagster_slurm_components.component.value_files import load_file, load_value, write_value

here = Path.cwd()


def refused(call, *args):
    try:
        call(*args)
    except dg.Failure as failure:
        return failure.description
    raise AssertionError("not refused")


"""


class Tables:
    """A Python with pandas, pyarrow and polars."""

    def __init__(self, venv: Path, folder: Path) -> None:
        (packages,) = venv.glob("lib/python*/site-packages")
        self._environment = {
            **os.environ,
            # What both have comes from the folder that is named first.
            "PYTHONPATH": f"{Path(__file__).parents[2]}:{packages}",
            "DAGSTER_HOME": "",
        }
        self._folder = folder

    def run(self, code: str) -> None:
        """Run code that fails where something is not as it says."""
        done = subprocess.run(
            [sys.executable, "-c", HEAD + code],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def tables(tables_venv: Path, tmp_path: Path) -> Tables:
    return Tables(tables_venv, tmp_path)


def test_a_table_comes_back_as_it_was(tables: Tables) -> None:
    tables.run("""
from typing import Any

table = pd.DataFrame({"x": [1, 2], "when": pd.to_datetime(["2026-01-01", "2026-01-02"])}, index=["a", "b"])
file, what = write_value(table, here)
assert (file.name, what) == ("value.pandas.parquet", "Parquet")
pd.testing.assert_frame_equal(load_value(file, Any, "it"), table)
assert load_value(file, pl.DataFrame, "it")["x"].to_list() == [1, 2]
assert load_value(file, Path, "it") == file

table = pl.DataFrame({"x": [1, 2], "y": [[1], None]})
file, what = write_value(table, here)
assert (file.name, what) == ("value.polars.parquet", "Parquet")
assert load_value(file, Any, "it").equals(table)
assert load_value(file, pd.DataFrame, "it")["x"].tolist() == [1, 2]
""")


def test_without_pyarrow_it_is_csv(tables: Tables) -> None:
    tables.run("""
from typing import Any

value_files.find_spec = lambda name: None
table = pd.DataFrame({"x": [1.5, None], "y": ["a,b", "c"]})
file, what = write_value(table, here)
assert file.name == "value.pandas.csv"
assert what.startswith("CSV, as there is no pyarrow")
pd.testing.assert_frame_equal(load_value(file, Any, "it"), table)
told = refused(write_value, table.set_index("y"), here)
assert told == "A table whose index is not 0, 1, 2... can't be stored as CSV: install pyarrow."
assert write_value(table.iloc[:0], here)[0].read_text() == "x,y\\n"
refused(write_value, table.iloc[1:], here)
""")


@pytest.mark.parametrize("library", ["pd", "pl"])
def test_the_suffix_says_how_a_file_is_read(tables: Tables, library: str) -> None:
    tables.run(f"""
kind = {library}.DataFrame
table = pd.DataFrame({{"x": [1, 2], "y": ["a", "b"]}})
table.to_parquet(here / "t.parquet")
table.to_feather(here / "t.feather")
table.to_csv(here / "t.csv", index=False)
table.to_csv(here / "t.tsv", index=False, sep="\\t")
table.to_json(here / "t.JSON", orient="records")
for name in ("t.jsonl", "t.ndjson"):
    table.to_json(here / name, orient="records", lines=True)
for name in ("t.parquet", "t.feather", "t.csv", "t.tsv", "t.JSON", "t.jsonl", "t.ndjson"):
    got = load_file(here / name, kind, "it")
    assert isinstance(got, kind), name
    assert list(got["x"]) == [1, 2] and list(got["y"]) == ["a", "b"], name
(here / "t.txt").touch()
assert refused(load_file, here / "t.txt", kind, "Output `x`").startswith(
    "Output `x` is no table: it has files `.txt`, and all have to be one of `.parquet`, `.csv`,"
)
""")


@pytest.mark.parametrize("library", ["pd", "pl"])
def test_several_files_are_one_table_in_the_order_of_their_names(tables: Tables, library: str) -> None:
    tables.run(f"""
kind = {library}.DataFrame
for suffix in ("parquet", "csv"):
    folder = here / suffix
    (folder / "deep").mkdir(parents=True)
    for name, x in (("b", 3), ("a", 1), ("deep/c", 5)):
        table = pl.DataFrame({{"x": [x, x + 1]}})
        getattr(table, f"write_{{suffix}}")(folder / f"{{name}}.{{suffix}}")
    got = load_file(folder, kind, "it")
    assert list(got["x"]) == [1, 2, 3, 4, 5, 6], got
(folder / "d.parquet").touch()
assert "it has files `.csv`, `.parquet`" in refused(load_file, folder, kind, "it")
(here / "bad.parquet").write_text("x")
if kind is pd.DataFrame:
    assert "can't be read as `DataFrame`: " in refused(load_file, here / "bad.parquet", kind, "it")
""")


def test_between_assets(tables: Tables) -> None:
    tables.run("""
@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
def rows(context) -> pd.DataFrame:
    return pd.DataFrame({"key": [context.partition_key]})


@dg.asset
def together(rows: dict[str, pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(rows[key] for key in sorted(rows))


@dg.asset
def counted(together: pd.DataFrame) -> int:
    return len(together)


resources = {"io_manager": HostPathIOManager(base_path=str(here / "kept"))}
defs = dg.Definitions([rows, together, counted], resources=resources)
with dg.DagsterInstance.ephemeral() as instance:
    job = defs.resolve_implicit_global_asset_job_def()
    for key in ("a", "b"):
        assert job.execute_in_process(instance=instance, asset_selection=[rows.key], partition_key=key).success
    rest = dg.materialize([rows, together, counted], instance=instance, resources=resources,
                          selection=[together, counted])
    assert rest.output_for_node("counted") == 2
assert sorted(str(each.relative_to(here / "kept")) for each in here.rglob("value.*")) == [
    "counted/value.json",
    "rows/partition=a/value.pandas.parquet",
    "rows/partition=b/value.pandas.parquet",
    "together/value.polars.parquet",
]
""")
