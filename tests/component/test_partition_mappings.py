"""From which partitions of another asset, or of itself, an asset is made."""

from __future__ import annotations

import dagster as dg
import pytest
from component.conftest import Project
from dagster.components.core.component_tree import ComponentTreeException

DAILY = "{type: daily, start_date: '2026-01-01', end_date: '2026-01-05'}"


VARIABLES = """
import dagster as dg

@dg.template_var
def regions():
    return dg.MultiPartitionMapping({"day": dg.DimensionPartitionMapping("day", dg.IdentityPartitionMapping())})

@dg.template_var
def keys():
    return dg.StaticPartitionsDefinition(["a"])
"""


def mapped(project: Project, mapping: str) -> dg.PartitionMapping | None:
    project.write("variables.py", VARIABLES)
    project.script(
        f"payload: train.py\nassets: [{{key: m, deps: [{{asset: up, partition_mapping: {mapping}}}]}}]"
    )
    with (project.folder / "defs.yaml").open("a") as stream:
        stream.write("template_vars_module: .variables\n")
    (dep,) = project.assets()["m"].deps
    assert dep.asset_key == dg.AssetKey("up")
    return dep.partition_mapping


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ("{type: all}", dg.AllPartitionMapping()),
        ("{type: identity}", dg.IdentityPartitionMapping()),
        ("{type: last}", dg.LastPartitionMapping()),
        (
            "{type: specific_partitions, partition_keys: [a, 7]}",
            dg.SpecificPartitionsPartitionMapping(["a", "7"]),
        ),
        (
            "{type: static, downstream_partition_keys_by_upstream_partition_key: {north: [oslo, 7]}}",
            dg.StaticPartitionMapping({"north": ["oslo", "7"]}),
        ),
        (
            "{type: time_window, start_offset: -7, end_offset: -1, allow_nonexistent_upstream_partitions: true}",
            dg.TimeWindowPartitionMapping(-7, -1, True),
        ),
        (
            "{type: multi_to_single_dimension, partition_dimension_name: day}",
            dg.MultiToSingleDimensionPartitionMapping("day"),
        ),
    ],
)
def test_a_mapping_is_dagsters_own(project, written, made):
    mapping = mapped(project, written)
    assert type(mapping) is type(made)
    assert vars(mapping) == vars(made) if hasattr(made, "__dict__") else mapping == made


def test_a_template_gives_what_has_no_word(project):
    mapping = mapped(project, "'{{ regions }}'")
    assert isinstance(mapping, dg.MultiPartitionMapping)


def test_a_template_that_gives_something_else_is_told(project):
    with pytest.raises(ComponentTreeException):
        mapped(project, "'{{ keys }}'")
    assert project.mistakes() == [
        "5: expected a PartitionMapping, the template gave StaticPartitionsDefinition"
    ]


def test_each_partition_is_made_from_the_one_before(project):
    project.script(
        f"""
        payload: train.py
        assets:
          - key: m
            partitions_def: {DAILY}
            deps: [{{asset: m, partition_mapping: {{type: time_window, start_offset: -1, end_offset: -1}}}}]
        """
    )
    (assets,) = project.ops().values()
    mapping, days = assets.get_partition_mapping(dg.AssetKey("m")), assets.partitions_def
    assert mapping is not None
    assert days is not None
    third = days.empty_subset().with_partition_keys(["2026-01-03"])
    asked = mapping.get_upstream_mapped_partitions_result_for_partitions(third, days, days)
    assert list(asked.partitions_subset.get_partition_keys()) == ["2026-01-02"]
