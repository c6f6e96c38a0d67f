"""Assets and checks as declared in YAML, as Dagster's own specs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any, cast

import dagster as dg
from dagster._core.definitions.metadata.source_code import CodeReferencesMetadataSet
from dagster.components.resolved.errors import ResolutionException
from dagster_shared.check import CheckError

from dagster_slurm_components.component.ops import OpArguments
from dagster_slurm_components.spec.assets import AssetDeclaration, CheckDeclaration, RetryPolicy
from dagster_slurm_components.spec.component import ScriptEntry
from dagster_slurm_components.spec.place import Path, Position
from dagster_slurm_components.spec.problems import Problem, SpecError, describe
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.resolve import ResolvedScript
from dagster_slurm_components.spec.script import Script

MOST_KINDS = 3
"""Kinds that Dagster's UI shows well; ours are added only up to here, the user's always stay."""

_REFUSALS = (dg.DagsterError, CheckError, ResolutionException, ValueError, TypeError, OverflowError)
"""What Dagster raises for a value that it doesn't take."""


@dataclass(frozen=True)
class SlurmScript:
    """One script of a component, as Dagster knows it.

    It keeps what was written and not what was made of it: a project may hold thousands, and each process loads all.

    Attributes:
        entry: The script as written.
        op: The settings of its op.
        assets: The specs of its assets.
        checks: The specs of its checks.
    """

    entry: ScriptEntry
    op: OpArguments
    assets: tuple[dg.AssetSpec, ...]
    checks: tuple[dg.AssetCheckSpec, ...]

    @property
    def name(self) -> str:
        """The name of its op."""
        return self.op.name

    @property
    def folder(self) -> FilePath:
        """The folder of the file that holds it."""
        return self.entry.folder

    def resolve(self, profile: LoadedProfile) -> ResolvedScript:
        """Return the script as it runs in a profile.

        Raises:
            SpecError: With a problem for each mistake.
        """
        return self.entry.resolve(profile)


@dataclass(frozen=True)
class DeclaredScript:
    """One script, checked as far as that goes without a profile.

    Attributes:
        entry: The script as written.
        op: The name of its op, unique in the component.
        resolved: The script on top of the component's defaults, in no profile.
        code_version: The version of assets that declare none.
    """

    entry: ScriptEntry
    op: str
    resolved: ResolvedScript
    code_version: str

    @property
    def script(self) -> Script:
        """The validated script."""
        return self.resolved.script


def slurm_script(declared: DeclaredScript) -> SlurmScript:
    """Return a script with its specs.

    Raises:
        SpecError: With all values that Dagster refuses.
    """
    references = code_references(declared)
    problems: list[Problem] = []
    assets: list[dg.AssetSpec] = []
    for index, asset in enumerate(declared.script.assets):
        try:
            with told(declared.resolved.merged.position, ("assets", index)):
                assets.append(_asset_spec(declared, index, asset, references))
        except SpecError as exc:
            problems += exc.problems
    checks: list[dg.AssetCheckSpec] = []
    for index, check in enumerate(declared.script.checks):
        try:
            with told(declared.resolved.merged.position, ("checks", index)):
                checks.append(_check_spec(declared, index, check, references))
        except SpecError as exc:
            problems += exc.problems
    if problems:
        raise SpecError(problems)
    return SlurmScript(declared.entry, _op_settings(declared), tuple(assets), tuple(checks))


def _op_settings(declared: DeclaredScript) -> OpArguments:
    op = declared.script.op
    return OpArguments(
        name=declared.op,
        description=op.description or declared.script.description,
        tags=op.tags,
        pool=op.pool,
        retry_policy=retry_policy(op.retry_policy),
        backfill_policy=backfill_policy(op.backfill_policy),
        can_subset=declared.script.can_subset,
    )


def asset_key(text: str) -> dg.AssetKey:
    """Return the key that a text names; a slash after a backslash is part of a name."""
    return dg.AssetKey.from_escaped_user_string(text)


def _asset_spec(
    declared: DeclaredScript, index: int, asset: AssetDeclaration, references: Mapping[str, Any]
) -> dg.AssetSpec:
    path: Path = ("assets", index)
    script = declared.script
    description = asset.description
    if description is None and len(script.assets) == 1:
        description = script.description
    return dg.AssetSpec(
        key=asset_key(asset.key),
        deps=[asset_key(key) for key in asset.deps],
        description=description,
        metadata={**asset.metadata, **references},
        skippable=bool(asset.skippable),
        group_name=asset.group_name,
        code_version=asset.code_version or declared.code_version,
        automation_condition=_instance(
            declared, (*path, "automation_condition"), asset.automation_condition, dg.AutomationCondition
        ),
        owners=asset.owners,
        tags={name: _tag(value) for name, value in asset.tags.items()},
        kinds=kinds(asset.kinds, declared),
        partitions_def=_partitions(declared, (*path, "partitions_def"), asset.partitions_def),
        freshness_policy=_instance(
            declared, (*path, "freshness_policy"), asset.freshness_policy, dg.FreshnessPolicy
        ),
    )


def _check_spec(
    declared: DeclaredScript, index: int, check: CheckDeclaration, references: Mapping[str, Any]
) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        name=check.name,
        asset=asset_key(check.asset),
        description=check.description,
        additional_deps=[asset_key(key) for key in check.additional_deps],
        blocking=check.blocking,
        metadata={**check.metadata, **references},
        automation_condition=_instance(
            declared,
            ("checks", index, "automation_condition"),
            check.automation_condition,
            dg.AutomationCondition,
        ),
    )


def kinds(own: Sequence[str], declared: DeclaredScript) -> set[str]:
    """Return the kinds of an asset: the user's, then ``slurm`` and the launcher's type while there is room."""
    launcher = declared.resolved.merged.data.get("launcher")
    named = not isinstance(launcher, Mapping) or "type" in launcher
    ours = ["slurm", *([declared.script.launcher.type] if named else [])]
    added = [kind for kind in ours if kind not in own][: max(0, MOST_KINDS - len(own))]
    return {*own, *added}


def _tag(value: object) -> str:
    """Write a tag's value as YAML does: ``true``, not ``True``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def code_references(declared: DeclaredScript) -> dict[str, Any]:
    """Return the metadata by which Dagster's UI links an asset to its YAML and its payload."""
    references: list[dg.LocalFileCodeReference] = []
    where = declared.entry.script.position(())
    if where is not None:
        references.append(_reference(where.file, where.line, "YAML"))
    payload = declared.resolved.payload_file()
    if payload is not None:
        references.append(_reference(str(payload.absolute()), 1, "payload"))
    if not references:
        return {}
    return dict(
        CodeReferencesMetadataSet(
            code_references=dg.CodeReferencesMetadataValue(code_references=list(references))
        )
    )


@lru_cache(maxsize=4)
def _reference(file: str, line: int, label: str) -> dg.LocalFileCodeReference:
    """Return the reference; the scripts of a matrix share theirs."""
    return dg.LocalFileCodeReference(file_path=file, line_number=line, label=label)


def retry_policy(policy: RetryPolicy | None) -> dg.RetryPolicy | None:
    """Return Dagster's retry policy of a step."""
    if policy is None:
        return None
    return dg.RetryPolicy(
        max_retries=policy.max_retries,
        delay=policy.delay,
        backoff=dg.Backoff[policy.backoff] if policy.backoff else None,
        jitter=dg.Jitter[policy.jitter] if policy.jitter else None,
    )


def backfill_policy(policy: Any) -> dg.BackfillPolicy | None:
    """Return Dagster's backfill policy."""
    if policy is None:
        return None
    if policy.type == "single_run":
        return dg.BackfillPolicy.single_run()
    return dg.BackfillPolicy.multi_run(policy.max_partitions_per_run)


class _Resolvable(dg.Resolvable, dg.Model):
    """Leads to Dagster's own resolvers of asset attributes."""

    asset: dg.ResolvedAssetSpec


@lru_cache(maxsize=256)
def _dagster_partitions(raw: str) -> dg.PartitionsDefinition[Any]:
    data = {"asset": {"key": "any", "partitions_def": json.loads(raw)}}
    model = _Resolvable.model().model_validate(data)
    resolved = _Resolvable.resolve_from_model(dg.ResolutionContext.default(), model)
    return cast("dg.PartitionsDefinition[Any]", resolved.asset.partitions_def)


def _partitions(declared: DeclaredScript, path: Path, value: Any) -> dg.PartitionsDefinition[Any] | None:
    if isinstance(value, Mapping):
        with told(declared.resolved.merged.position, path):
            return _dagster_partitions(json.dumps(value, sort_keys=True))
    return cast(
        "dg.PartitionsDefinition[Any] | None", _instance(declared, path, value, dg.PartitionsDefinition)
    )


def _instance(declared: DeclaredScript, path: Path, value: Any, kind: Any) -> Any:
    """Check what a template gave."""
    if value is None or isinstance(value, kind):
        return value
    message = f"expected {_article(kind.__name__)} {kind.__name__}, the template gave "
    message += describe(value) if isinstance(value, (str, int, float, list, dict)) else type(value).__name__
    raise SpecError([Problem(message, declared.resolved.position(*path), path, kind="template_type")])


def _article(word: str) -> str:
    return "an" if word[0] in "AEIOU" else "a"


@contextmanager
def told(position_of: Callable[[Path], Position | None], path: Path) -> Iterator[None]:
    """Turn a refusal of Dagster's into a problem with a place.

    Args:
        position_of: Finds where a path of the script was written.
        path: What Dagster is given.
    """
    try:
        yield
    except _REFUSALS as exc:
        message = " ".join(str(exc).split())
        raise SpecError([Problem(message, position_of(path), path, kind="refused")]) from None
