"""``SlurmScriptComponent``: short YAML becomes Dagster assets that run wherever the profile says."""

# No `from __future__ import annotations` here: Dagster reads the annotation of an op's `context` and takes no text.

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import dagster as dg
from pydantic import BaseModel
from typing_extensions import Self

from dagster_slurm_components.component.attributes import Attributes
from dagster_slurm_components.component.code_version import code_version
from dagster_slurm_components.component.declare import DeclaredScript, declare
from dagster_slurm_components.component.document import attributes_document, renderer
from dagster_slurm_components.component.pool import profile_pool
from dagster_slurm_components.component.specs import asset_specs, backfill_policy, check_specs, retry_policy
from dagster_slurm_components.spec.component import read_component
from dagster_slurm_components.spec.problems import Problem, SpecError, in_order
from dagster_slurm_components.spec.profiles import load_profile
from dagster_slurm_components.spec.resolve import ResolvedScript


class InvalidScriptsError(dg.DagsterInvalidDefinitionError):
    """A component's YAML has mistakes; the message tells all of them, each with its file and line.

    Attributes:
        problems: The mistakes.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = in_order(problems)
        count = "1 mistake" if len(self.problems) == 1 else f"{len(self.problems)} mistakes"
        super().__init__(f"{count} in YAML\n" + "\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True)
class SlurmScriptComponent(dg.Component):
    """Scripts that run on a laptop, on a staging cluster and on a supercomputer without a changed line.

    Each script becomes one op that makes its assets, and under Slurm one job. Where it runs is chosen when it runs,
    by the profile that ``DAGSTER_SLURM_PROFILE`` names (``profiles/NAME.yaml``; ``local`` without it).

    Override ``get_asset_spec`` to change all assets, or ``execute`` to change how scripts run.

    Attributes:
        scripts: The scripts, checked as far as that goes without a profile.
        defaults: What they have in common, with templates as they stand.
    """

    scripts: tuple[DeclaredScript, ...]
    defaults: Mapping[str, Any]

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
        """Read and check the scripts.

        Raises:
            InvalidScriptsError: With all mistakes in this component's YAML and the files that it includes.
        """
        if not isinstance(attributes, Attributes):
            return cls((), {})
        try:
            document = attributes_document(attributes.root, context)
        except SpecError as exc:
            raise InvalidScriptsError(exc.problems) from None
        read = read_component(document, render=renderer(context))
        scripts, wrong = declare(read.entries)
        if read.problems or wrong:
            raise InvalidScriptsError((*read.problems, *wrong)) from None
        return cls(scripts, document.data.get("defaults") or {})

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build one op with its assets and checks for each script.

        Raises:
            InvalidScriptsError: Dagster refuses a value; all such mistakes are told.
        """
        built: list[dg.AssetsDefinition] = []
        problems: list[Problem] = []
        pools: dict[FilePath, str | None] = {}
        with warnings.catch_warnings():
            # Code references are in beta (dagster 1.13), which is our concern and not the user's.
            warnings.simplefilter("ignore", dg.BetaWarning)
            for script in self.scripts:
                folder = script.entry.folder
                pools[folder] = pools[folder] if folder in pools else profile_pool(folder)
                try:
                    built.append(self._assets_definition(script, pools[folder]))
                except SpecError as exc:
                    problems += exc.problems
        if problems:
            raise InvalidScriptsError(problems) from None
        return dg.Definitions(assets=built)

    def get_asset_spec(self, spec: dg.AssetSpec, script: DeclaredScript) -> dg.AssetSpec:
        """Return the spec of an asset; override it to change the specs of all assets.

        Args:
            spec: What the YAML declares.
            script: The script that makes the asset.
        """
        return spec

    def execute(self, context: dg.AssetExecutionContext, script: DeclaredScript) -> Iterator[Any]:
        """Run a script as one job and yield its results; override it to do something before or after.

        Args:
            context: Dagster's context of the step.
            script: The script.
        """
        # Imported on use: loading definitions needs nothing of what runs jobs.
        from dagster_slurm_components.pipes.client import run_script  # noqa: PLC0415

        yield from run_script(context, self.resolve(script)).get_results()

    def resolve(self, script: DeclaredScript, profile: str | None = None) -> ResolvedScript:
        """Return a script in a profile.

        Args:
            script: The script.
            profile: The profile's name; else the one that ``DAGSTER_SLURM_PROFILE`` names.

        Raises:
            SpecError: The profile has mistakes, or the script has some in it.
        """
        return script.entry.resolve(load_profile(profile, start=script.entry.folder))

    def _assets_definition(self, declared: DeclaredScript, pool: str | None) -> dg.AssetsDefinition:
        script, op = declared.script, declared.script.op
        specs = asset_specs(declared, code_version(declared, self.defaults))

        @dg.multi_asset(
            name=declared.op,
            description=op.description or script.description,
            specs=[self.get_asset_spec(spec, declared) for spec in specs],
            check_specs=check_specs(declared),
            op_tags=op.tags,
            pool=op.pool or pool,
            retry_policy=retry_policy(op.retry_policy),
            backfill_policy=backfill_policy(op.backfill_policy),
            can_subset=script.can_subset,
        )
        def run(context: dg.AssetExecutionContext) -> Any:
            yield from self.execute(context, declared)

        return run
