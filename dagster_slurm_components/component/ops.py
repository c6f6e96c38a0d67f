"""The op of one script with its assets and checks, as ``dagster.multi_asset`` would make it."""

import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, TypeAlias, TypeVar

import dagster as dg

from dagster_slurm_components.component.run_config import run_config
from dagster_slurm_components.component.values import REPORTED, ReportedValues
from dagster_slurm_components.pipes.tags import MAY_LEAVE
from dagster_slurm_components.spec.keys import RESERVED

_Key: TypeAlias = dg.AssetKey | dg.AssetCheckKey
Key = TypeVar("Key", dg.AssetKey, _Key)


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
    hooks: frozenset[dg.HookDefinition] = frozenset()
    required_resource_keys: frozenset[str] = frozenset()


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
    thousand scripts, a fifth of the whole load. It also loses one of two assets whose keys fold into one name. All ops
    of scripts take the same, so Dagster's classes are used directly; a test holds the result against ``multi_asset``'s.
    """
    if not specs:
        return _only_checks(run, settings, checks)
    wanted: dict[_Key, str] = {spec.key: spec.key.to_python_identifier() for spec in specs}
    named = _names(wanted | {check.key: check.get_python_identifier() for check in checks})
    inputs = _inputs(specs, named, in_parts=settings.can_subset)
    check_outputs = {named[check.key]: check for check in checks}
    optional = may_leave or settings.can_subset
    outs = {
        **{named[spec.key]: _out(spec, required=not (optional or spec.skippable)) for spec in specs},
        **dict.fromkeys(check_outputs, dg.Out(None, is_required=False) if optional else _CHECK_OUT),
    }
    op = dg.OpDefinition(
        _Compute(run),
        settings.name,
        ins=dict.fromkeys(inputs, _NOTHING_IN),
        outs=outs,
        description=settings.description,
        config_schema=_config(),
        tags={**settings.tags, **(_may_leave_out(specs) if optional else {})},
        retry_policy=settings.retry_policy,
        pool=settings.pool,
        required_resource_keys={*settings.required_resource_keys},
    )
    return dg.AssetsDefinition(
        keys_by_input_name=inputs,
        keys_by_output_name={named[spec.key]: spec.key for spec in specs},
        node_def=op,
        can_subset=settings.can_subset,
        specs=specs,
        check_specs_by_output_name=check_outputs,
        backfill_policy=settings.backfill_policy,
        hook_defs=settings.hooks,
        resource_defs=_RESOURCES,
    )


def _only_checks(
    run: Callable[[dg.AssetExecutionContext], Any],
    settings: OpArguments,
    checks: Sequence[dg.AssetCheckSpec],
) -> dg.AssetsDefinition:
    words = {"op_tags" if name == "tags" else name: value for name, value in vars(settings).items()}
    del words["backfill_policy"], words["hooks"]

    @dg.multi_asset_check(specs=checks, config_schema=run_config(), **words)
    def only_checks(context):  # type: ignore[no-untyped-def]
        return run(dg.AssetExecutionContext(context.op_execution_context))

    return only_checks.with_hooks(settings.hooks) if settings.hooks else only_checks


@dataclass(frozen=True)
class _Compute:
    """What Dagster calls. It asks for each op's signature, and working one out takes a third of an op's time."""

    run: Callable[[dg.AssetExecutionContext], Any]
    __signature__: ClassVar = inspect.signature(lambda context, inputs: None)

    def __call__(self, context: Any, inputs: Any) -> Any:
        return self.run(context)


@cache
def _config() -> dg.Field:
    """Return the config of all ops: one field, for of a mapping Dagster makes one anew for each."""
    return dg.Field(run_config())


_RESOURCES = {REPORTED: dg.IOManagerDefinition.hardcoded_io_manager(ReportedValues())}
_OF_OWN_PART = "__subset_input__"
"""What the name of an input for an asset of the same op begins with (dagster 1.13, `ASSET_SUBSET_INPUT_PREFIX`)."""
_NOTHING_IN = dg.In(dg.Nothing)
_CHECK_OUT = dg.Out(None)
_VALUE_OUT = dg.Out(dg.Nothing)


def _inputs(
    specs: Sequence[dg.AssetSpec], named: Mapping[_Key, str], *, in_parts: bool
) -> dict[str, dg.AssetKey]:
    """Return the assets that an op takes, by the names of its inputs."""
    made = {spec.key for spec in specs}
    every = [dep for spec in specs for dep in spec.deps]
    deps = {dep.asset_key for dep in every if dep.asset_key not in made or dep.partition_mapping is not None}
    names = _names({key: "_".join(key.path).replace("-", "_").replace(".", "_") for key in deps})
    inputs = {name: key for key, name in names.items()}
    if in_parts:  # its parts may become steps that wait for each other
        own = {dep.asset_key for dep in every} - deps
        inputs |= {f"{_OF_OWN_PART}{named[key]}": key for key in own}
    return inputs


def _names(wanted: Mapping[Key, str]) -> dict[Key, str]:
    """Return the name of each: the wanted one, with a hash where two want the same, or Dagster keeps it.

    Dagster's own code (1.13) takes the last of two, `a.b` and `a_b`, and knows nothing of the other.
    """
    times = Counter(wanted.values())
    return {
        key: name
        if times[name] == 1 and name not in RESERVED
        else f"{name}_{hashlib.sha256(repr(key).encode()).hexdigest()[:8]}"
        for key, name in wanted.items()
    }


def _may_leave_out(specs: Sequence[dg.AssetSpec]) -> dict[str, str]:
    skippable = [spec.key.to_escaped_user_string() for spec in specs if spec.skippable]
    return {MAY_LEAVE: json.dumps(skippable)}


def _out(spec: dg.AssetSpec, *, required: bool) -> dg.Out:
    return _VALUE_OUT._replace(  # a new one would look its type up anew
        io_manager_key=spec.metadata.get("dagster/io_manager_key", REPORTED),  # `with_io_manager_key`
        description=spec.description,
        is_required=required,
        metadata=spec.metadata,
        code_version=spec.code_version,
    )
