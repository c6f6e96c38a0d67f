"""Partitions reach payloads in any language: as variables, and a range's keys as a file."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest
from project_fixture import Project

from dagster_slurm_components import ComputeResource
from dagster_slurm_components.pipes.context import partition_of
from dagster_slurm_components.pipes.partition import template_names
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.templates import fill_waiting

DAILY = dg.DailyPartitionsDefinition("2026-02-01")
SHOW = [
    "bash",
    "-c",
    "env -0 | tr '\\0' '\\1' | tr '\\n' '\\2' | tr '\\1' '\\n' | grep '^DAGSTER_SLURM_PARTITION'",
]
HOSTILE = [
    "plain",
    "a/b|c",
    "x,y:z#w",
    "two words",
    'it\'s "quoted"',
    "$(touch hacked); `id` & *",
    "--flag=1",
    "Köln/Ürümqi",
    "k" * 300,
]


def ran(
    project: Project, partitions: dg.PartitionsDefinition, *, command: list[str] = SHOW, **how: Any
) -> Mapping[str, str]:
    """Materialize one asset and return the partition's variables as its payload saw them."""
    shown: list[str] = []
    compute = ComputeResource(project=str(project.root))

    @dg.asset(partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run())
    def parted(context: dg.AssetExecutionContext) -> Any:
        yield from compute.run(context=context, command=command).get_results()

    instance = dg.DagsterInstance.ephemeral()
    assert dg.materialize([parted], instance=instance, **how).success
    for file in sorted(project.root.glob(".dagster-slurm/runs/**/stdout.log")):
        shown += file.read_text().splitlines()
    return dict(line.split("=", 1) for line in shown)


@pytest.mark.parametrize("key", HOSTILE)
def test_a_key_arrives_as_it_is(project: Project, key: str) -> None:
    told = ran(project, dg.StaticPartitionsDefinition(HOSTILE), partition_key=key)
    assert told == {"DAGSTER_SLURM_PARTITION_KEY": key}
    assert not list(project.root.rglob("hacked"))


def test_a_day_has_a_window_of_time(project: Project) -> None:
    assert ran(project, DAILY, partition_key="2026-02-03") == {
        "DAGSTER_SLURM_PARTITION_KEY": "2026-02-03",
        "DAGSTER_SLURM_PARTITION_START": "2026-02-03T00:00:00+00:00",
        "DAGSTER_SLURM_PARTITION_END": "2026-02-04T00:00:00+00:00",
    }


def test_each_dimension_has_a_variable(project: Project) -> None:
    both = dg.MultiPartitionsDefinition(
        {"sea-region": dg.StaticPartitionsDefinition(["north west", "south"]), "day": DAILY}
    )
    key = dg.MultiPartitionKey({"sea-region": "north west", "day": "2026-02-03"})
    told = ran(project, both, partition_key=key)
    assert told["DAGSTER_SLURM_PARTITION_KEY"] == "2026-02-03|north west"
    assert told["DAGSTER_SLURM_PARTITION_KEY_SEA_REGION"] == "north west"
    assert told["DAGSTER_SLURM_PARTITION_KEY_DAY"] == "2026-02-03"
    assert told["DAGSTER_SLURM_PARTITION_END"] == "2026-02-04T00:00:00+00:00"


def test_a_range_is_a_file_of_keys(project: Project) -> None:
    tags = {
        "dagster/asset_partition_range_start": HOSTILE[1],
        "dagster/asset_partition_range_end": HOSTILE[-1],
    }
    show = ["bash", "-c", 'cat "$DAGSTER_SLURM_PARTITION_KEYS_FILE" >keys; env | grep _RANGE_']
    told = ran(project, dg.StaticPartitionsDefinition(HOSTILE), command=show, tags=tags)
    assert told == {
        "DAGSTER_SLURM_PARTITION_RANGE_START": HOSTILE[1],
        "DAGSTER_SLURM_PARTITION_RANGE_END": HOSTILE[-1],
    }
    (keys,) = project.root.rglob("keys")
    assert keys.read_text().splitlines() == HOSTILE[1:]


def test_a_step_without_partitions_has_none(project: Project) -> None:
    compute = ComputeResource(project=str(project.root))

    @dg.asset
    def plain(context: dg.AssetExecutionContext) -> Any:
        command = ["bash", "-c", "env | grep -c PARTITION; true"]
        yield from compute.run(context=context, command=command).get_results()

    assert dg.materialize([plain]).success
    (file,) = project.root.glob(".dagster-slurm/runs/**/stdout.log")
    assert file.read_text() == "0\n"


def test_templates_know_each_dimension(instance: dg.DagsterInstance) -> None:
    both = dg.MultiPartitionsDefinition({"region": dg.StaticPartitionsDefinition(["eu", "us"]), "day": DAILY})
    tree = {
        "args": ["{{ partition.region }}", "{% if partition.region == 'eu' %}--eu{% endif %}", "{{ other }}"]
    }
    filled = []

    @dg.asset(partitions_def=both)
    def parted(context: dg.AssetExecutionContext) -> None:
        names, missing = template_names(partition_of(context))
        filled.append(fill_waiting(tree, lambda path: None, names, missing))
        with pytest.raises(SpecError, match="`partition` has no `regoin`; did you mean `region`"):
            fill_waiting("{{ partition.regoin }}", lambda path: None, names, missing)

    key = dg.MultiPartitionKey({"region": "eu", "day": "2026-02-03"})
    assert dg.materialize([parted], instance=instance, partition_key=key).success
    assert filled == [{"args": ["eu", "--eu", "{{ other }}"]}]
