"""``SlurmScriptComponent``: short YAML becomes Dagster assets that run wherever the profile says."""

import gc
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import dagster as dg
from pydantic import BaseModel
from typing_extensions import Self

from dagster_slurm_components.component.attributes import Attributes
from dagster_slurm_components.component.document import attributes_document, renderer
from dagster_slurm_components.component.ops import script_assets
from dagster_slurm_components.component.scaffolder import SlurmScriptScaffolder
from dagster_slurm_components.component.specs import SlurmScript, refusals_at, slurm_script
from dagster_slurm_components.pipes.tags import LEFT
from dagster_slurm_components.spec.check_script import NO_PROFILE, ScriptChecker
from dagster_slurm_components.spec.component import read_component
from dagster_slurm_components.spec.cross_checks import duplicate_assets, duplicate_names, op_name
from dagster_slurm_components.spec.files import add_files
from dagster_slurm_components.spec.merge import Layer, merge
from dagster_slurm_components.spec.problems import Problem, SpecError, in_order
from dagster_slurm_components.spec.profiles import load_profile, profile_values
from dagster_slurm_components.spec.resolve import CONTENT, ResolvedScript, ScriptEntry
from dagster_slurm_components.spec.source import Document


class InvalidScriptsError(dg.DagsterInvalidDefinitionError):
    """A component's YAML has mistakes; the message tells all ``problems``, each with its file and line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = in_order(problems)
        count = "1 mistake" if len(self.problems) == 1 else f"{len(self.problems)} mistakes"
        super().__init__(f"{count} in YAML\n" + "\n".join(str(problem) for problem in self.problems))


@dg.scaffold_with(SlurmScriptScaffolder)
@dataclass(frozen=True)
class SlurmScriptComponent(dg.Component):
    """Scripts that run on a laptop, on a staging cluster and on a supercomputer without a changed line.

    Each script becomes one op that makes its assets, and under Slurm one job. Where it runs is chosen when it runs,
    by the profile that ``DAGSTER_SLURM_PROFILE`` names (``profiles/NAME.yaml``; ``local`` without it). One run may ask
    for another profile, and for other values, by the op's config or by tags (``dagster-slurm/resources.mem``).

    Override ``get_asset_spec`` to change all assets, or ``execute`` to change how scripts run.

    Attributes:
        scripts: The scripts, checked as far as that goes without a profile.
    """

    scripts: tuple[SlurmScript, ...]

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Describe the component type to ``dg`` and Dagster's UI."""
        return dg.ComponentTypeSpec(
            description="Scripts that run as plain processes or as Slurm jobs, as the profile says.",
            tags=["slurm", "hpc", "pipes"],
            produces=["asset", "asset_check"],
        )

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return the model of ``attributes``: its schema is strict, itself it takes any mapping.

        ``load`` reads the file again and tells of mistakes with their lines.
        """
        return Attributes

    @classmethod
    def get_code_references_for_yaml(cls, *args: Any, **kwargs: Any) -> list[Any]:
        """Add no reference: each asset already has one to the line of its own script."""
        return []

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Read and check the scripts; all mistakes in this YAML and what it includes are one InvalidScriptsError."""
        if not isinstance(attributes, Attributes):
            return cls(())
        try:
            document = attributes_document(attributes.root, context)
        except SpecError as exc:
            raise InvalidScriptsError(exc.problems) from None
        with _without_collections():
            scripts, problems = _scripts(document, context)
        if problems:
            raise InvalidScriptsError(problems)
        return cls(tuple(scripts))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build one op with its assets and checks for each script; what Dagster refuses is an InvalidScriptsError."""
        built: list[dg.AssetsDefinition] = []
        problems: list[Problem] = []
        words_in = cache(_profile_words)
        with _without_collections():
            for script in self.scripts:
                try:
                    with refusals_at(script.entry.script.position, ()):
                        pool, leave, _ = words_in(script.folder)
                        built.append(self._assets_definition(script, pool, leave))
                except SpecError as exc:
                    problems += exc.problems
        if problems:
            raise InvalidScriptsError(problems)
        return dg.Definitions(assets=built)

    def get_asset_spec(self, spec: dg.AssetSpec, script: SlurmScript) -> dg.AssetSpec:
        """Return the spec of an asset; override it to change the specs of all assets.

        Args:
            spec: What the YAML declares.
            script: The script that makes the asset.
        """
        return spec

    def execute(self, context: dg.AssetExecutionContext, script: SlurmScript) -> Iterator[Any]:
        """Run a script as one job and yield its results; override it to do something before or after.

        Of a job that it leaves it yields observations alone.

        Args:
            context: Dagster's context of the step.
            script: The script.

        Raises:
            Failure: The script is not right in this profile, or its job failed.
        """
        # Imported on use: loading definitions needs nothing of what runs jobs.
        from dagster_slurm_components.pipes.client import run_script  # noqa: PLC0415
        from dagster_slurm_components.pipes.context import override_of, partition_of  # noqa: PLC0415
        from dagster_slurm_components.pipes.left.leave import leave_script  # noqa: PLC0415
        from dagster_slurm_components.pipes.partition import template_names  # noqa: PLC0415

        try:
            run = override_of(context, context.op_config)
            resolved = script.entry.resolve(load_profile(start=script.folder, run=run))
            partition = partition_of(context)
            is_array = resolved.script.array is not None and partition.keys and not resolved.script.leave
            if not is_array:
                resolved = resolved.at_partition(*template_names(partition))
        except SpecError as exc:
            # The same YAML would fail again.
            raise dg.Failure(str(exc), allow_retries=False) from None
        if resolved.script.leave:
            yield from leave_script(context, resolved)
        elif is_array:
            from dagster_slurm_components.pipes.arrays.run import run_array  # noqa: PLC0415

            yield from run_array(context, resolved)
        else:
            yield from run_script(context, resolved).get_results()

    def _assets_definition(self, script: SlurmScript, pool: str | None, leave: bool) -> dg.AssetsDefinition:
        settings = replace(script.op, pool=pool) if pool and not script.op.pool else script.op
        assets = [self.get_asset_spec(spec, script) for spec in script.assets]
        run, leaves = partial(_with_all_checks, self, script), leave or script.may_leave
        return script_assets(run, settings, assets, script.checks, may_leave=leaves)


def _with_all_checks(
    component: SlurmScriptComponent, script: SlurmScript, context: dg.AssetExecutionContext
) -> Iterator[Any]:
    """Run a script and yield its results; when they end, all selected checks must have been among them.

    By then Dagster has stored them. Its own error would name an output and no line (dagster 1.13). The payload of a job
    that was left has reported nothing yet.
    """
    selected = context.selected_asset_check_keys
    missing = {(check.asset_key, check.name) for check in script.checks if check.key in selected}
    metadata: dict[str, Any] = {}
    for result in component.execute(context, script):
        if isinstance(result, dg.AssetObservation) and LEFT in result.tags:
            missing.clear()
            yield result
            continue
        checks = result.check_results or () if isinstance(result, dg.MaterializeResult) else [result]
        for check in checks:
            if isinstance(check, dg.AssetCheckResult):
                if check.asset_key is None or check.check_name is None:
                    missing.clear()  # Dagster finds out which check is meant
                else:
                    missing.discard((check.asset_key, check.check_name))
        metadata.update(getattr(result, "metadata", None) or {})
        yield result
    if missing:
        from dagster_slurm_components.pipes.failure import unreported  # noqa: PLC0415

        resolved = script.entry.resolve(load_profile(start=script.folder))
        raise unreported(script.name, resolved, missing, metadata)


def _profile_words(folder: Path) -> tuple[str | None, bool, bool]:
    """Return the pool of the profile that is chosen now, whether scripts leave their jobs, and if Slurm runs them.

    Dagster knows pools, outputs and kinds from the definitions, so these words of a profile are read when they are
    loaded. Its mistakes are told when a script runs: definitions must load on a machine that has none of the profile's
    secrets.
    """
    try:
        values = profile_values(start=folder)
        pool, leave, scheduler = values["pool"], values["leave"], values["scheduler"]
    except SpecError:
        return None, False, False
    return pool if isinstance(pool, str) and pool else None, leave is True, scheduler == "slurm"


@contextmanager
def _without_collections() -> Iterator[None]:
    """Hold Python's cyclic garbage collector back for a moment.

    A thousand definitions are some hundred thousand objects, none of them garbage. The collector would look at all
    of them several times, which takes a fifth of the load.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _scripts(document: Document, context: dg.ComponentLoadContext) -> tuple[list[SlurmScript], list[Problem]]:
    """Return the scripts of a component, and all that is wrong with them."""
    read = read_component(document, render=renderer(context))
    checker = ScriptChecker()
    checked = [checker.check(entry) for entry in read.entries]
    problems = [*read.problems, *duplicate_assets(checked), *duplicate_names([checked])]
    defaults = document.data.get("defaults") or {}
    scripts: dict[str, SlurmScript] = {}
    words_in = cache(_profile_words)
    with warnings.catch_warnings():
        # Code references are in beta, partitions of checks in preview (dagster 1.13): our concern, not the user's.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        for each in checked:
            problems += each.problems
            if each.script is None or each.problems:
                continue
            resolved = ResolvedScript(each.script, each.merged, NO_PROFILE)
            name = op_name(each.script, scripts)
            try:
                version = code_version(each.entry, resolved.payload_files(checker.find), defaults)
                slurm = words_in(each.entry.folder)[-1]
                scripts[name] = slurm_script(each.entry, name, resolved, version, slurm)
            except SpecError as exc:
                problems += exc.problems
    return list(scripts.values()), problems


def code_version(entry: ScriptEntry, files: Mapping[PurePosixPath, Path], defaults: Mapping[str, Any]) -> str:
    """Return the version of a script's code: a hash of its files, and of what was written in script and defaults.

    The same in every profile and on every machine. Templates count as they stand, not by what they give here: a
    value may be a secret, and versions are shown.
    """
    written = entry.script.written or {}
    if defaults:
        written = merge([Layer("", data, lambda path: None) for data in (defaults, written)]).data
    content = {key: written[key] for key in CONTENT if written.get(key) is not None}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode())
    add_files(digest, files)
    return digest.hexdigest()[:16]
