"""The ops that are built directly are those that ``dagster.multi_asset`` builds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan

from dagster_slurm_components.component.ops import OpArguments, script_assets
from dagster_slurm_components.component.run_config import run_config
from dagster_slurm_components.component.values import REPORTED
from dagster_slurm_components.pipes.tags import MAY_LEAVE
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.script import IN_A_RUN


@dg.success_hook
def cheer(context: dg.HookContext) -> None:
    """Do what a hook does."""


DAILY = dg.DailyPartitionsDefinition("2026-01-01")
PLAIN = OpArguments("an_op", None, {}, None, None, None, False)
RICH = OpArguments(
    name="rich",
    description="What it does.",
    tags={"dagster/priority": "3"},
    pool="gpu_jobs",
    retry_policy=dg.RetryPolicy(max_retries=2),
    backfill_policy=dg.BackfillPolicy.single_run(),
    can_subset=False,
    hooks=frozenset({cheer}),
    required_resource_keys=frozenset({"chat"}),
)


def spec(key: str, **kwargs: Any) -> dg.AssetSpec:
    """Return the spec of an asset whose key may have parts."""
    return dg.AssetSpec(key.split("/"), **kwargs)


def check(name: str, asset: str, **kwargs: Any) -> dg.AssetCheckSpec:
    """Return the spec of a check."""
    return dg.AssetCheckSpec(name, asset=asset.split("/"), **kwargs)


CASES: dict[str, tuple[OpArguments, Sequence[dg.AssetSpec], Sequence[dg.AssetCheckSpec]]] = {
    "one": (PLAIN, [spec("a")], []),
    "odd_keys": (PLAIN, [spec("models-1/v1.0/x_y", deps=[["raw-data", "v1.0"], "b"])], []),
    "chain": (PLAIN, [spec("a", deps=["raw"]), spec("b", deps=["a", "raw"]), spec("c", deps=["b"])], []),
    "attributes": (
        RICH,
        [
            spec(
                "a",
                description="An asset.",
                metadata={"n": 1},
                group_name="training",
                code_version="7",
                owners=["team:ml"],
                tags={"tier": "gold"},
                kinds={"slurm"},
                automation_condition=dg.AutomationCondition.eager(),
            ),
            spec("b", skippable=True),
        ],
        [],
    ),
    "partitions": (RICH, [spec("a", partitions_def=DAILY), spec("b", partitions_def=DAILY, deps=["a"])], []),
    "own_past": (
        PLAIN,
        [
            spec(
                "a",
                partitions_def=DAILY,
                deps=[dg.AssetDep("a", partition_mapping=dg.TimeWindowPartitionMapping(-1, -1))],
            )
        ],
        [],
    ),
    "checks": (
        PLAIN,
        [spec("a/b"), spec("c")],
        [check("is_sorted", "a/b", blocking=True, additional_deps=["other"]), check("v1.0", "c")],
    ),
    "in_parts": (
        OpArguments("parts", None, {}, None, None, None, True),
        [spec("a"), spec("b", deps=["a"])],
        [],
    ),
}


def run(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Report all that is asked for."""
    for key in sorted(context.selected_asset_keys):
        yield dg.MaterializeResult(key, metadata={"type": type(context).__name__})
    for each in sorted(context.selected_asset_check_keys, key=str):
        yield dg.AssetCheckResult(passed=True, asset_key=each.asset_key, check_name=each.name)


@pytest.mark.parametrize("case", CASES)
def test_as_multi_asset_builds_it(case: str) -> None:
    settings, specs, checks = CASES[case]
    ours = script_assets(run, settings, specs, checks)
    dagsters = dg.multi_asset(
        name=settings.name,
        description=settings.description,
        specs=specs,
        check_specs=checks,
        op_tags=settings.tags,
        pool=settings.pool,
        retry_policy=settings.retry_policy,
        backfill_policy=settings.backfill_policy,
        can_subset=settings.can_subset,
        hooks=settings.hooks,
        required_resource_keys=settings.required_resource_keys,
        config_schema=run_config(),
    )(lambda context: run(context))  # noqa: PLW0108 (Dagster takes no annotation that is text)
    assert ours.keys_by_input_name == dagsters.keys_by_input_name
    assert ours.keys_by_output_name == dagsters.keys_by_output_name
    assert list(ours.specs) == list(dagsters.specs)
    assert list(ours.check_specs) == list(dagsters.check_specs)
    assert ours.check_specs_by_output_name == dagsters.check_specs_by_output_name
    assert ours.backfill_policy == dagsters.backfill_policy
    assert ours.can_subset == dagsters.can_subset
    assert ours.hook_defs == dagsters.hook_defs == settings.hooks
    mine, theirs, made = ours.op, dagsters.op, ours.keys_by_output_name
    # Of an op that can be run in parts Dagster takes all outputs for optional; the tag says which are.
    tags = {MAY_LEAVE: "[]"} if settings.can_subset else {}
    assert mine.tags == {**theirs.tags, **tags}
    for attribute in ("name", "description", "pool", "retry_policy", "ins", "required_resource_keys"):
        assert getattr(mine, attribute) == getattr(theirs, attribute), attribute
    refusing = {
        name: out._replace(io_manager_key=REPORTED if name in made else out.io_manager_key)
        for name, out in theirs.outs.items()
    }
    assert mine.outs == refusing
    assert mine.config_schema.as_field().is_required == theirs.config_schema.as_field().is_required
    assert mine.config_schema.config_type.key == theirs.config_schema.config_type.key


@pytest.mark.parametrize("case", CASES)
def test_it_runs(case: str) -> None:
    settings, specs, checks = CASES[case]
    partition = "2026-02-01" if "partitions_def" in str(specs) and specs[0].partitions_def else None
    with dg.DagsterInstance.ephemeral() as instance:
        made = script_assets(run, settings, specs, checks)
        done = dg.materialize([made], instance=instance, partition_key=partition, resources={"chat": []})
        events = done.get_asset_materialization_events()
        assert {event.asset_key for event in events} == {spec.key for spec in specs}
        assert {event.materialization.metadata["type"].value for event in events} == {"AssetExecutionContext"}
        passed = {each.asset_check_key for each in done.get_asset_check_evaluations()}
        assert passed == {each.key for each in checks}


@pytest.mark.parametrize("case", ["one", "in_parts"])
@pytest.mark.parametrize(
    ("config", "refusal"),
    [
        ({"resorces": {"mem": "64G"}}, 'unexpected config entry "resorces"'),
        ({"resources": {"memm": "64G"}}, 'unexpected config entry "memm"'),
        ({"payload": "other.sh"}, 'unexpected config entry "payload"'),
        ({"retry": {"timeout": {"mem": "x2"}}}, 'unexpected config entry "mem"'),
        ({"launcher": {"type": "srunn"}}, "bash | srun | torchrun | ray got srunn"),
        ({"resources": {"ntasks": "many"}}, '"many"'),
    ],
)
def test_d15_a_wrong_key_in_the_launchpad_is_refused(
    case: str, config: dict[str, object], refusal: str
) -> None:
    settings, specs, checks = CASES[case]
    made = script_assets(run, settings, specs, checks)
    job = dg.Definitions(assets=[made]).resolve_implicit_global_asset_job_def()
    with pytest.raises(dg.DagsterInvalidConfigError, match=re.escape(refusal)):
        dg.validate_run_config(job, {"ops": {settings.name: {"config": config}}})


@pytest.mark.parametrize("case", ["one", "in_parts"])
def test_what_a_run_may_ask_for_is_taken(case: str) -> None:
    settings, specs, checks = CASES[case]
    made = script_assets(run, settings, specs, checks)
    job = dg.Definitions(assets=[made]).resolve_implicit_global_asset_job_def()
    config = {
        "profile": "staging",
        "args": ["--epochs", 3],
        "env": {"LEVEL": 3, "NAME": "x"},
        "resources": {
            "mem": 64,
            "nodes": "2-4",
            "gpus": 2,
            "partition": None,
            "exclusive": True,
            "time": "1:00",
        },
        "environment": {"type": "uv", "project": "..", "verify": "off", "modules": ["gcc"]},
        "launcher": {"type": "torchrun", "nproc_per_node": "gpu", "max_restarts": 1},
        "retry": {"out_of_memory": {"attempts": 2, "max_mem": "64G"}},
        "array": {"max_parallel": 2},
    }
    taken = dg.validate_run_config(job, {"ops": {settings.name: {"config": config}}})
    assert taken["ops"][settings.name]["config"] == config
    without = dg.validate_run_config(job, {})
    assert without["ops"][settings.name]["config"] == {}


def test_all_that_a_run_may_change_has_its_words_in_the_launchpad() -> None:
    fields = run_config()
    assert set(fields) == {"profile", *IN_A_RUN}
    assert all(field.description for field in fields.values())
    resources = fields["resources"].config_type.fields
    assert set(resources) == set(Resources.model_fields)
    assert resources["mem"].description == Resources.model_fields["mem"].description


def test_keys_that_fold_into_one_name_stay_apart() -> None:
    """What Dagster's own code (1.13) would lose: `raw/data`, `raw_data` and `raw.data` are one input to it."""
    keys = ["raw/data", "raw_data", "raw.data", "raw-data"]
    makers = [
        script_assets(run, replace(PLAIN, name="one"), [spec("raw/data")], []),
        script_assets(run, replace(PLAIN, name="all"), [spec(key) for key in keys[1:]], []),
    ]
    taker = script_assets(
        run,
        replace(PLAIN, name="taker"),
        [spec("z", deps=[key.split("/") for key in keys]), spec("z_ok")],
        [check("ok", "z")],
    )
    assert {key.to_user_string() for key in taker.keys_by_input_name.values()} == set(keys)
    assert len(taker.op.output_defs) == 3
    job = dg.Definitions(assets=[*makers, taker]).resolve_implicit_global_asset_job_def()
    assert create_execution_plan(job).get_executable_step_deps()["taker"] == {"one", "all"}
