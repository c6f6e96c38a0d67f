"""The op of one script with its assets and checks, as ``dagster.multi_asset`` would make it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from dagster_slurm_components.component.run_config import run_config
from dagster_slurm_components.pipes.tags import MAY_LEAVE


@dataclass(frozen=True)
class OpArguments:
    """What Dagster is told of an op, in the words of ``dagster.multi_asset``."""

    name: str
    description: str | None
    tags: Mapping[str, Any]
    pool: str | None
    retry_policy: dg.RetryPolicy | None
    backfill_policy: dg.BackfillPolicy | None
    can_subset: bool


def script_assets(
    run: Callable[[dg.AssetExecutionContext], Any],
    settings: OpArguments,
    specs: Sequence[dg.AssetSpec],
    checks: Sequence[dg.AssetCheckSpec],
    *,
    may_leave: bool = False,
) -> dg.AssetsDefinition:
    """Return the definition of one op with its assets and checks; ``run`` runs the script and yields its results.

    An op that ``may_leave`` its job need not make any of them: Dagster would materialize by itself what it misses
    (1.13), and executes nothing that comes after an output that is not there.

    ``multi_asset`` (dagster 1.13) works out from each function what it takes, which is half of its time and, at a
    thousand scripts, a fifth of the whole load. All ops of scripts take the same, so Dagster's classes are used
    directly; a test holds the result against ``multi_asset``'s, which still serves ops that can be run in parts.
    """
    if settings.can_subset:
        words = {"op_tags" if name == "tags" else name: value for name, value in vars(settings).items()}
        # Dagster reads annotations and takes none that is text, so that it gets a function without any.
        in_parts = dg.multi_asset(specs=specs, check_specs=checks, config_schema=run_config(), **words)
        return in_parts(lambda context: run(context))  # noqa: PLW0108
    made = {spec.key: spec.key.to_python_identifier() for spec in specs}
    deps = {
        dep.asset_key
        for spec in specs
        for dep in spec.deps
        if dep.asset_key not in made or dep.partition_mapping is not None
    }
    inputs = {"_".join(key.path).replace("-", "_").replace(".", "_"): key for key in deps}
    check_outputs = {check.get_python_identifier(): check for check in checks}
    check_out = dg.Out(None, is_required=False) if may_leave else _CHECK_OUT
    outs = {
        **{made[spec.key]: _out(spec, required=not (may_leave or spec.skippable)) for spec in specs},
        **dict.fromkeys(check_outputs, check_out),
    }
    op = dg.OpDefinition(
        lambda context, inputs: run(context),  # without annotations too
        settings.name,
        ins=dict.fromkeys(inputs, _NOTHING_IN),
        outs=outs,
        description=settings.description,
        config_schema=run_config(),
        tags={**settings.tags, **_may_leave_out(specs)} if may_leave else settings.tags,
        retry_policy=settings.retry_policy,
        pool=settings.pool,
    )
    return dg.AssetsDefinition(
        keys_by_input_name=inputs,
        keys_by_output_name={name: key for key, name in made.items()},
        node_def=op,
        specs=specs,
        check_specs_by_output_name=check_outputs,
        backfill_policy=settings.backfill_policy,
    )


_NOTHING_IN = dg.In(dg.Nothing)
_CHECK_OUT = dg.Out(None)


def _may_leave_out(specs: Sequence[dg.AssetSpec]) -> dict[str, str]:
    skippable = [spec.key.to_escaped_user_string() for spec in specs if spec.skippable]
    return {MAY_LEAVE: json.dumps(skippable)}


def _out(spec: dg.AssetSpec, *, required: bool) -> dg.Out:
    return dg.Out(
        dg.Nothing,
        description=spec.description,
        is_required=required,
        metadata=spec.metadata,
        code_version=spec.code_version,
    )
