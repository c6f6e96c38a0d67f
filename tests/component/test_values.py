"""What Python assets and checks get of a script's asset: what its payload reported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import dagster as dg
import pytest

from dagster_slurm_components import ComputeResource
from dagster_slurm_components.component.ops import OpArguments, script_assets

REPORT = """
. pipes.sh
pipes_materialize models/a "loss=${LOSS:-0.5}" done:bool=true model:path=/scratch/a.bin "about:md=*Good.*" \\
    'layers:json=[3, 4]' 'dagster/column_schema:table_schema={"columns": [{"name": "x", "type": "int"}]}'
"""
ALL = {
    "loss": 0.5,
    "done": True,
    "model": Path("/scratch/a.bin"),
    "about": "*Good.*",
    "layers": [3, 4],
    "dagster/column_schema": dg.TableSchema(columns=[dg.TableColumn("x", "int")]),
}


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.mark.parametrize("can_subset", [False, True])
def test_it_is_what_the_payload_reported(project, instance, can_subset):
    project.write("report.sh", REPORT)
    subset = str(can_subset).lower()
    project.script(f"{{payload: report.sh, can_subset: {subset}, assets: [{{key: models/a}}, {{key: b}}]}}")

    got = []

    @dg.asset(ins={"model": dg.AssetIn(["models", "a"])})
    def report(model: dict) -> None:
        got.append(model)

    @dg.asset
    def of_nothing(b):
        assert b == {}

    @dg.asset_check(asset=["models", "a"])
    def is_good(a: float):
        return dg.AssetCheckResult(passed=a < 1, metadata={"loss": a})

    rest = dg.Definitions(
        [report, of_nothing], asset_checks=[is_good], resources={"compute": ComputeResource()}
    )
    defs = dg.Definitions.merge(project.load(), rest)
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance)
    (check,) = result.get_asset_check_evaluations()
    assert got == [ALL]
    assert (check.passed, check.metadata["loss"].value) == (True, 0.5)
    # In another run, and in a notebook.
    assert job.execute_in_process(instance=instance, asset_selection=[report.key]).success
    assert defs.load_asset_value(["models", "a"], instance=instance, python_type=float) == 0.5


NAME_IT = 'Name the value that is meant, by `dg.AssetIn(metadata={"value": NAME})`, or take all of them, as a `dict`.'
LETTERS = dg.StaticPartitionsDefinition(["a", "b", "c"])
WEEKLY = dg.WeeklyPartitionsDefinition("2026-01-04", end_date="2026-02-01")
DAILY = dg.DailyPartitionsDefinition("2026-01-04", end_date="2026-02-01")


def model(partitions: dg.PartitionsDefinition | None = None) -> dg.AssetsDefinition:
    """Return the asset `model` of a script."""
    settings = OpArguments("model", None, {}, None, None, None, False)
    spec = dg.AssetSpec("model", partitions_def=partitions)
    return script_assets(lambda context: iter(()), settings, [spec], [])


def taken(
    instance: dg.DagsterInstance,
    kind: Any = None,
    metadata: Mapping[str, Any] | None = None,
    *,
    of: dg.AssetsDefinition | None = None,
    partition: str | None = None,
    mapping: dg.PartitionMapping | None = None,
    partitions: dg.PartitionsDefinition | None = None,
) -> Any:
    """Return what a Python asset gets that takes `model` as an argument of a type, or what its step is told."""
    got = []

    def report(model):
        got.append(model)

    report.__annotations__ = {"return": None} | ({} if kind is None else {"model": kind})
    takes = dg.AssetIn(metadata=metadata, partition_mapping=mapping)
    python = dg.asset(ins={"model": takes}, partitions_def=partitions)(report)
    job = dg.Definitions([of or model(), python]).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance, asset_selection=[python.key], partition_key=partition, raise_on_error=False
    )
    if result.success:
        return got[0]
    (failed,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return failed.user_failure_data.description if failed.user_failure_data else str(failed.error)


def reported(instance: dg.DagsterInstance, partition: str | None = None, **metadata: Any) -> None:
    """Store what a payload has reported, as its step and the sensor do."""
    instance.report_runless_asset_event(
        dg.AssetMaterialization("model", metadata=metadata, partition=partition)
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (None, {"loss": 1, "at": Path("/x"), "text": "t", "ok": False}),
        (Any, {"loss": 1, "at": Path("/x"), "text": "t", "ok": False}),
        (object, {"loss": 1, "at": Path("/x"), "text": "t", "ok": False}),
        (dict, {"loss": 1, "at": Path("/x"), "text": "t", "ok": False}),
        (Mapping[str, object], {"loss": 1, "at": Path("/x"), "text": "t", "ok": False}),
        (float, 1.0),
        (float | None, 1.0),
        (int, 1),
        (bool, False),
        (str, "t"),
        (Path, Path("/x")),
        (PurePosixPath, PurePosixPath("/x")),
    ],
)
def test_the_type_of_the_argument_says_what_is_meant(instance, kind, expected):
    reported(instance, loss=2, old=True)
    at = dg.MetadataValue.path("/x")
    reported(instance, loss=1, at=at, text="t", ok=False, **{"job/elapsed_s": 3.5, "job/state": "COMPLETED"})
    got = taken(instance, kind)
    assert (got, type(got)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        (float, "epochs", 3.0),
        (int, "epochs", 3),
        (None, "loss", "nan"),
        (str, "loss", "nan"),
        (list, "layers", [1, 2]),
        (dict, "settings", {"a": 1}),
        (Path, "text", Path("/y")),
        (float, "job/elapsed_s", 3.5),
        (dg.TableSchema, "dagster/column_schema", dg.TableSchema(columns=[dg.TableColumn("x")])),
        (None, "nothing", None),
    ],
)
def test_the_inputs_metadata_name_one(instance, kind, name, expected):
    more = {"job/elapsed_s": 3.5, "dagster/column_schema": dg.TableSchema(columns=[dg.TableColumn("x")])}
    more |= {"layers": [1, 2], "settings": {"a": 1}, "nothing": None}
    reported(instance, epochs=3, loss="nan", text="/y", **more)
    got = taken(instance, kind, {"value": name})
    assert (got, type(got)) == (expected, type(expected))


def test_a_number_that_is_not_finite_is_one(instance):
    reported(instance, loss="-inf", text="t")
    assert taken(instance, float) == float("-inf")
    assert taken(instance, str) == "t"
    assert 'Value "-inf" of python type "str" must be a int' in taken(instance, int)


@pytest.mark.parametrize(
    "values", [{"loss": 0.5, "rows": 3}, {"loss": 1, "rows": 3}, {"loss": "nan", "rows": 3}]
)
@pytest.mark.parametrize("kind", [int, float])
def test_what_is_meant_does_not_depend_on_the_values(instance, kind, values):
    reported(instance, **values)
    assert taken(instance, kind) == (
        f"One {kind.__name__} is asked for of `model`, whose newest materialization reports `loss`, `rows`. {NAME_IT}"
    )


def test_what_is_not_there_is_told(instance):
    never = "`model` was never materialized, so nothing is reported of it: materialize it."
    assert taken(instance) == taken(instance, float) == never
    assert taken(instance, float | None) is None
    reported(instance, rows=3, **{"job/state": "COMPLETED"})
    for kind in (Path, set):
        assert taken(instance, kind) == (
            f"One {kind.__name__} is asked for of `model`, whose newest materialization reports `rows`. {NAME_IT}"
        )
    for kind in (None, dict, float):
        assert taken(instance, kind, {"value": "loss"}) == (
            f"`loss` is asked for of `model`, whose newest materialization reports `rows`. {NAME_IT}"
        )
    assert taken(instance, float | None, {"value": "loss"}) is None
    reported(instance)
    assert "materialization reports nothing. " in taken(instance, str)


def test_it_is_the_same_partition(instance):
    reported(instance, "a", loss=1)
    reported(instance, "b", loss=2)
    reported(instance, "a", loss=3)
    of = model(LETTERS)
    assert [taken(instance, int, of=of, partition=key, partitions=LETTERS) for key in "ab"] == [3, 2]
    assert taken(instance, int, of=of, partition="c", partitions=LETTERS) == (
        "`model` in partition `c` was never materialized, so nothing is reported of it: materialize it."
    )


def test_of_several_partitions_it_is_a_dictionary(instance):
    reported(instance, "a", loss=1, rows=1)
    reported(instance, "c", loss="nan", rows=2)
    of, some = model(LETTERS), {"allow_missing_partitions": True}
    assert "in partition `b` was never" in taken(instance, of=of)
    assert taken(instance, of=of, metadata=some) == {
        "a": {"loss": 1, "rows": 1},
        "c": {"loss": "nan", "rows": 2},
    }
    some["value"] = "loss"
    assert taken(instance, dict, of=of, metadata=some) == {"a": 1, "c": "nan"}
    assert str(taken(instance, dict[str, float], of=of, metadata=some)) == "{'a': 1.0, 'c': nan}"
    assert taken(instance, float, of=of) == (
        "Several partitions of `model` are asked for: write `dict[str, float]`."
    )


def test_partitions_are_mapped_as_dagster_does(instance):
    days = [f"2026-01-{day:02}" for day in range(11, 18)]
    for number, day in enumerate(days):
        reported(instance, day, loss=number)
    got = taken(instance, dict[str, int], of=model(DAILY), partition="2026-01-11", partitions=WEEKLY)
    assert got == dict(zip(days, range(7), strict=True))
    last = dg.LastPartitionMapping()
    assert "in partition `2026-01-31`" in taken(instance, int, of=model(DAILY), mapping=last)
    reported(instance, "2026-01-31", loss=9)
    assert taken(instance, int, of=model(DAILY), mapping=last) == 9
    two = dg.MultiPartitionsDefinition({"letter": LETTERS, "day": DAILY})
    reported(instance, dg.MultiPartitionKey({"letter": "a", "day": days[0]}), loss=8)
    key = dg.MultiPartitionKey({"letter": "a", "day": days[0]})
    assert taken(instance, int, of=model(two), partition=key, partitions=two) == 8


def test_a_value_that_a_payload_left_out_skips_what_takes_it(project, instance):
    project.write("report.sh", ". pipes.sh\npipes_materialize b n=1\n")
    project.script("{payload: report.sh, assets: [{key: a, skippable: true}, {key: b}]}")

    @dg.asset
    def of_both(a: object, b: int) -> None:
        raise AssertionError

    @dg.asset
    def of_one(b: int) -> int:
        return b

    rest = dg.Definitions([of_both, of_one], resources={"compute": ComputeResource()})
    job = dg.Definitions.merge(project.load(), rest).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance)
    assert [event.step_key for event in result.all_events if event.is_step_skipped] == ["of_both"]
    assert result.output_for_node("of_one") == 1


class Tables(dg.ConfigurableIOManager):
    """Reads what a payload wrote."""

    folder: str

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        raise AssertionError

    def load_input(self, context: dg.InputContext) -> list[list[str]]:
        file = Path(self.folder, *context.asset_key.path).with_suffix(".csv")
        rows = [line.split(",") for line in file.read_text().splitlines()]
        upstream = context.upstream_output
        assert upstream is not None
        return rows[1:] if upstream.definition_metadata["header"] else rows


@pytest.mark.parametrize(
    "written", ["io_manager_key: tables", "metadata: {header: true, dagster/io_manager_key: tables}"]
)
def test_an_io_manager_of_the_users_loads_what_a_payload_wrote(project, instance, tmp_path, written):
    project.write("report.sh", 'printf "x,y\\n1,2\\n" >"$TABLES/a.csv"\n')
    written = written if "header" in written else f"{written}, metadata: {{header: true}}"
    project.script(
        f"{{payload: report.sh, env: {{TABLES: '{tmp_path}'}}, assets: [{{key: a, {written}}}, {{key: b}}]}}"
    )
    got = []

    @dg.asset
    def report(a: list, b: dict) -> None:
        got.append((a, b))

    resources = {"compute": ComputeResource(), "tables": Tables(folder=str(tmp_path))}
    defs = dg.Definitions.merge(project.load(), dg.Definitions([report], resources=resources))
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance).success
    assert job.execute_in_process(instance=instance, asset_selection=[report.key]).success
    assert got == [([["1", "2"]], {})] * 2


def test_an_io_manager_that_is_not_there_is_refused_when_definitions_load(project):
    project.script("{payload: train.py, assets: [{key: a, io_manager_key: warehouse}]}")
    defs = dg.Definitions.merge(project.load(), dg.Definitions(resources={"compute": ComputeResource()}))
    with pytest.raises(dg.DagsterInvalidDefinitionError) as told:
        dg.Definitions.validate_loadable(defs)
    assert "io manager with key 'warehouse' required by output 'a' of op 'a'" in str(told.value)
    assert "change the required key to one of" in str(told.value)


def test_a_script_takes_no_values(project):
    project.script("{payload: train.py, assets: [{key: a, ins: {b: b}}]}")
    (told,) = project.mistakes()
    assert "`ins`" in told
    assert "a script takes no values, so write `deps`; it reads files" in told
