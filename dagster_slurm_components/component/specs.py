"""Assets and checks as declared in YAML, as Dagster's own specs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import dagster as dg
from dagster.components.resolved import core_models
from dagster.components.resolved.errors import ResolutionException
from dagster_shared.check import CheckError

from dagster_slurm_components.component.columns import with_columns
from dagster_slurm_components.component.ops import OpArguments
from dagster_slurm_components.executor.tags import STEP_TAG, THREAD
from dagster_slurm_components.pipes.message_metadata import cleaned
from dagster_slurm_components.spec.assets import AssetDeclaration, CheckDeclaration
from dagster_slurm_components.spec.launchers import LANGUAGES
from dagster_slurm_components.spec.model import Model
from dagster_slurm_components.spec.partition_mappings import PARTITION_MAPPINGS
from dagster_slurm_components.spec.place import KeyPath, Locate
from dagster_slurm_components.spec.problems import Problem, SpecError, describe
from dagster_slurm_components.spec.resolve import ResolvedScript, ScriptEntry, overrides

MOST_KINDS = 3
"""Kinds that Dagster's UI shows well; ours are added only up to here, the user's always stay."""

_REFUSALS = (dg.DagsterError, CheckError, ResolutionException, ValueError, TypeError, OverflowError)
"""What Dagster raises for a value that it doesn't take."""
_OBJECTS: Mapping[str, Any] = {
    "automation_condition": dg.AutomationCondition,
    "partitions_def": dg.PartitionsDefinition,
    "freshness_policy": dg.FreshnessPolicy,
}
"""The fields that hold an object of Dagster's: what a template gave, or partitions written as YAML."""
_CODE_REFERENCES = "dagster/code_references"
"""The metadata by which Dagster's UI links an asset to code (1.13)."""
_NO_CONTEXT = dg.ResolutionContext.default()


@dataclass(frozen=True)
class SlurmScript:
    """One script of a component, as Dagster knows it: the settings of its op, and the specs.

    It keeps what was written and not what was made of it: a project may hold thousands, and each process loads all.
    ``entry.resolve`` gives the script as it runs in a profile. One that ``may_leave`` does so in some profile.
    """

    entry: ScriptEntry
    op: OpArguments
    assets: tuple[dg.AssetSpec, ...]
    checks: tuple[dg.AssetCheckSpec, ...]
    may_leave: bool = False

    @property
    def name(self) -> str:
        """The name of its op."""
        return self.op.name

    @property
    def folder(self) -> Path:
        """The folder of the file that holds it."""
        return self.entry.folder


def slurm_script(
    entry: ScriptEntry, op: str, resolved: ResolvedScript, code_version: str, slurm: bool
) -> SlurmScript:
    """Return a script with its specs; all values that Dagster refuses are one SpecError.

    Args:
        entry: The script as written.
        op: The name of its op, unique in the component.
        resolved: The script on top of the component's defaults, in no profile.
        code_version: The version of assets that declare none.
        slurm: Whether the profile runs its jobs by Slurm.
    """
    script, references = resolved.script, _references(entry, resolved)
    problems: list[Problem] = []
    assets: list[dg.AssetSpec] = []
    checks: list[dg.AssetCheckSpec] = []
    declared: list[tuple[KeyPath, AssetDeclaration | CheckDeclaration]] = [
        *((("assets", index), asset) for index, asset in enumerate(script.assets)),
        *((("checks", index), check) for index, check in enumerate(script.checks)),
    ]
    for path, given in declared:
        try:
            with refusals_at(resolved.merged.position, path):
                words = _words(given, path, resolved)
                words["metadata"] = {**with_columns(cleaned(given.metadata)[0]), **references}
                if isinstance(given, AssetDeclaration):
                    assets.append(_asset_spec(given, words, resolved, code_version, slurm))
                else:
                    deps = [asset_key(key) for key in given.additional_deps]
                    words |= {"asset": asset_key(given.asset), "additional_deps": deps}
                    checks.append(dg.AssetCheckSpec(**words))
        except SpecError as exc:
            problems += exc.problems
    if problems:
        raise SpecError(problems)
    # By what its own YAML says, in any profile.
    leaves = script.leave or any(layer.data.get("leave") for layer in overrides(entry.script).values())
    return SlurmScript(entry, _op_arguments(op, resolved), tuple(assets), tuple(checks), leaves)


def _asset_spec(
    asset: AssetDeclaration, words: dict[str, Any], resolved: ResolvedScript, code_version: str, slurm: bool
) -> dg.AssetSpec:
    words |= {
        "key": asset_key(asset.key),
        "skippable": bool(asset.skippable),
        "code_version": asset.code_version or code_version,
        "tags": {name: _tag(value) for name, value in asset.tags.items()},
        "kinds": _kinds(asset.kinds, resolved, slurm=slurm),
    }
    if asset.description is None and len(resolved.script.assets) == 1:
        words["description"] = resolved.script.description
    io_manager_key = words.pop("io_manager_key")
    spec = dg.AssetSpec(**words)
    return spec.with_io_manager_key(io_manager_key) if io_manager_key else spec


def _kinds(own: Sequence[str], resolved: ResolvedScript, *, slurm: bool) -> set[str]:
    """Return the kinds of an asset: the user's, then launcher, ``slurm`` and language while there is room.

    The launcher ``bash`` starts anything, so that it tells nothing.
    """
    launcher, payload = resolved.script.launcher.type, resolved.script.payload
    language = LANGUAGES.get(PurePosixPath(payload).suffix) if payload else None
    ours = [launcher if launcher != "bash" else None, "slurm" if slurm else None, language]
    added = [kind for kind in ours if kind and kind not in own][: max(0, MOST_KINDS - len(own))]
    return {*own, *added}


def _references(entry: ScriptEntry, resolved: ResolvedScript) -> dict[str, Any]:
    """Return the metadata by which Dagster's UI links an asset to its YAML and its payload."""
    references: list[dg.LocalFileCodeReference] = []
    where, payload = entry.script.position(()), resolved.payload_file()
    if where is not None:
        references.append(_reference(where.file, where.line, "YAML"))
    if payload is not None:
        references.append(_reference(str(payload.absolute()), 1, "payload"))
    if not references:
        return {}
    return {_CODE_REFERENCES: dg.CodeReferencesMetadataValue(code_references=list(references))}


def _words(
    given: AssetDeclaration | CheckDeclaration, path: KeyPath, resolved: ResolvedScript
) -> dict[str, Any]:
    """Return what is written of an asset or check, with the objects of Dagster's that its fields stand for."""
    words = dict(vars(given))
    for name, kind in _OBJECTS.items():
        if name in words:
            words[name] = _dagster_object(words[name], kind, (*path, name), resolved)
    if isinstance(given, AssetDeclaration):
        words["deps"] = [*_deps(given, path, resolved)]
    return words


def _dagster_object(value: Any, kind: type, path: KeyPath, resolved: ResolvedScript) -> Any:
    """Return the object of Dagster's that a field stands for: of a model, or what a template gave."""
    if isinstance(value, Model):
        with refusals_at(resolved.merged.position, path):
            return _of_model(value)
    if value is None or isinstance(value, kind):
        return value
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    plain = isinstance(value, (str, int, float, list, dict))
    message = f"expected {article} {kind.__name__}, the template gave "
    message += describe(value) if plain else type(value).__name__
    raise SpecError([Problem.at(resolved.merged.position, path, message, kind="template_type")])


def _deps(asset: AssetDeclaration, path: KeyPath, resolved: ResolvedScript) -> Iterator[dg.AssetDep]:
    for number, dep in enumerate(asset.deps):
        here = (*path, "deps", number, "partition_mapping")
        mapping = _dagster_object(dep.partition_mapping, dg.PartitionMapping, here, resolved)
        yield dg.AssetDep(asset_key(dep.asset), partition_mapping=mapping)


def _op_arguments(name: str, resolved: ResolvedScript) -> OpArguments:
    script, op, retry = resolved.script, resolved.script.op, resolved.script.op.retry_policy
    hooks = [
        _dagster_object(hook, dg.HookDefinition, ("op", "hooks", number), resolved)
        for number, hook in enumerate(op.hooks)
    ]
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
        backfill_policy=core_models.resolve_backfill_policy(_NO_CONTEXT, op.backfill_policy),
        can_subset=script.can_subset,
        hooks=frozenset(filter(None, hooks)),
        required_resource_keys=frozenset(op.required_resource_keys),
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


@lru_cache(maxsize=256)
def _of_model(model: Model) -> dg.PartitionsDefinition[Any] | dg.PartitionMapping | None:
    """Return what Dagster has for partitions, or for a mapping of them; types and fields are those of its classes."""
    if type(model) not in PARTITION_MAPPINGS.values():
        return core_models.resolve_partitions_def(_NO_CONTEXT, model)
    fields = dict(model)
    name = fields.pop("type").title().replace("_", "")
    mapping: dg.PartitionMapping = getattr(dg, f"{name}PartitionMapping")(**fields)
    return mapping


@contextmanager
def refusals_at(position_of: Locate, path: KeyPath) -> Iterator[None]:
    """Turn a refusal of Dagster's, of what was written at ``path``, into a problem with a place."""
    try:
        yield
    except _REFUSALS as exc:
        message = " ".join(str(exc).split())
        raise SpecError([Problem.at(position_of, path, message, kind="refused")]) from None
