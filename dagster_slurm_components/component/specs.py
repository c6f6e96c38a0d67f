"""Assets and checks as declared in YAML, as Dagster's own specs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import dagster as dg
from dagster._core.definitions.metadata.source_code import CodeReferencesMetadataSet
from dagster.components.resolved.errors import ResolutionException
from dagster_shared.check import CheckError

from dagster_slurm_components.component.ops import OpArguments
from dagster_slurm_components.executor.tags import STEP_TAG, THREAD
from dagster_slurm_components.spec.component import ScriptEntry
from dagster_slurm_components.spec.place import KeyPath, Position
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
    def folder(self) -> Path:
        """The folder of the file that holds it."""
        return self.entry.folder

    def resolve(self, profile: LoadedProfile) -> ResolvedScript:
        """Return the script as it runs in a profile.

        Raises:
            SpecError: With a problem for each mistake.
        """
        return self.entry.resolve(profile)


def slurm_script(entry: ScriptEntry, op: str, resolved: ResolvedScript, code_version: str) -> SlurmScript:
    """Return a script with its specs.

    Args:
        entry: The script as written.
        op: The name of its op, unique in the component.
        resolved: The script on top of the component's defaults, in no profile.
        code_version: The version of assets that declare none.

    Raises:
        SpecError: With all values that Dagster refuses.
    """
    specs = _Specs(entry, resolved, code_version)
    problems: list[Problem] = []
    made: dict[str, list[Any]] = {"assets": [], "checks": []}
    for field, make in (("assets", specs.asset), ("checks", specs.check)):
        for index in range(len(getattr(resolved.script, field))):
            try:
                with refusals_at(resolved.merged.position, (field, index)):
                    made[field].append(make(index))
            except SpecError as exc:
                problems += exc.problems
    if problems:
        raise SpecError(problems)
    return SlurmScript(
        entry, _op_arguments(op, resolved.script), tuple(made["assets"]), tuple(made["checks"])
    )


class _Specs:
    """Makes the specs of one script."""

    def __init__(self, entry: ScriptEntry, resolved: ResolvedScript, code_version: str) -> None:
        self.entry = entry
        self.script = resolved.script
        self.resolved = resolved
        self.code_version = code_version
        self.references = self._references()

    def asset(self, index: int) -> dg.AssetSpec:
        asset, path = self.script.assets[index], ("assets", index)
        description = asset.description
        if description is None and len(self.script.assets) == 1:
            description = self.script.description
        return dg.AssetSpec(
            key=asset_key(asset.key),
            deps=[asset_key(key) for key in asset.deps],
            description=description,
            metadata={**asset.metadata, **self.references},
            skippable=bool(asset.skippable),
            group_name=asset.group_name,
            code_version=asset.code_version or self.code_version,
            automation_condition=self._instance(asset, dg.AutomationCondition, *path, "automation_condition"),
            owners=asset.owners,
            tags={name: _tag(value) for name, value in asset.tags.items()},
            kinds=self._kinds(asset.kinds),
            partitions_def=self._instance(asset, dg.PartitionsDefinition, *path, "partitions_def"),
            freshness_policy=self._instance(asset, dg.FreshnessPolicy, *path, "freshness_policy"),
        )

    def check(self, index: int) -> dg.AssetCheckSpec:
        check, path = self.script.checks[index], ("checks", index)
        return dg.AssetCheckSpec(
            name=check.name,
            asset=asset_key(check.asset),
            description=check.description,
            additional_deps=[asset_key(key) for key in check.additional_deps],
            blocking=check.blocking,
            metadata={**check.metadata, **self.references},
            automation_condition=self._instance(check, dg.AutomationCondition, *path, "automation_condition"),
        )

    def _kinds(self, own: Sequence[str]) -> set[str]:
        """Return the kinds of an asset: the user's, then ``slurm`` and the launcher's type while there is room."""
        launcher = self.resolved.merged.data.get("launcher")
        named = not isinstance(launcher, Mapping) or "type" in launcher
        ours = ["slurm", *([self.script.launcher.type] if named else [])]
        added = [kind for kind in ours if kind not in own][: max(0, MOST_KINDS - len(own))]
        return {*own, *added}

    def _references(self) -> dict[str, Any]:
        """Return the metadata by which Dagster's UI links an asset to its YAML and its payload."""
        references: list[dg.LocalFileCodeReference] = []
        where = self.entry.script.position(())
        if where is not None:
            references.append(_reference(where.file, where.line, "YAML"))
        payload = self.resolved.payload_file()
        if payload is not None:
            references.append(_reference(str(payload.absolute()), 1, "payload"))
        if not references:
            return {}
        value = dg.CodeReferencesMetadataValue(code_references=list(references))
        return dict(CodeReferencesMetadataSet(code_references=value))

    def _instance(self, spec: object, kind: Any, *path: str | int) -> Any:
        """Return the object of Dagster's that a field holds: what a template gave, or partitions written as YAML."""
        value = getattr(spec, str(path[-1]))
        if value is None or isinstance(value, kind):
            return value
        if kind is dg.PartitionsDefinition and isinstance(value, Mapping):
            with refusals_at(self.resolved.merged.position, path):
                return _dagster_partitions(json.dumps(value, sort_keys=True))
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        message = f"expected {article} {kind.__name__}, the template gave "
        message += (
            describe(value) if isinstance(value, (str, int, float, list, dict)) else type(value).__name__
        )
        raise SpecError([Problem(message, self.resolved.position(*path), path, kind="template_type")])


def _op_arguments(name: str, script: Script) -> OpArguments:
    op = script.op
    retry, backfill = op.retry_policy, op.backfill_policy
    return OpArguments(
        name=name,
        description=op.description or script.description,
        tags={STEP_TAG: THREAD, **op.tags},
        pool=op.pool,
        retry_policy=dg.RetryPolicy(
            max_retries=retry.max_retries,
            delay=retry.delay,
            backoff=dg.Backoff[retry.backoff] if retry.backoff else None,
            jitter=dg.Jitter[retry.jitter] if retry.jitter else None,
        )
        if retry
        else None,
        # None: all partitions in one run
        backfill_policy=dg.BackfillPolicy(getattr(backfill, "max_partitions_per_run", None))
        if backfill
        else None,
        can_subset=script.can_subset,
    )


def asset_key(text: str) -> dg.AssetKey:
    """Return the key that a text names; a slash after a backslash is part of a name."""
    return dg.AssetKey.from_escaped_user_string(text)


def _tag(value: object) -> str:
    """Write a tag's value as YAML does: ``true``, not ``True``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@lru_cache(maxsize=4)
def _reference(file: str, line: int, label: str) -> dg.LocalFileCodeReference:
    """Return the reference; the scripts of a matrix share theirs."""
    return dg.LocalFileCodeReference(file_path=file, line_number=line, label=label)


class _Resolvable(dg.Resolvable, dg.Model):
    """Leads to Dagster's own resolvers of asset attributes."""

    asset: dg.ResolvedAssetSpec


@lru_cache(maxsize=256)
def _dagster_partitions(raw: str) -> dg.PartitionsDefinition[Any]:
    data = {"asset": {"key": "any", "partitions_def": json.loads(raw)}}
    model = _Resolvable.model().model_validate(data)
    resolved = _Resolvable.resolve_from_model(dg.ResolutionContext.default(), model)
    return cast("dg.PartitionsDefinition[Any]", resolved.asset.partitions_def)


@contextmanager
def refusals_at(position_of: Callable[[KeyPath], Position | None], path: KeyPath) -> Iterator[None]:
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
