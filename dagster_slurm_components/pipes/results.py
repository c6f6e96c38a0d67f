"""What a payload reported, handed to Dagster: in the order that it needs, and also when the payload then failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import chain
from typing import Any

import dagster as dg
from dagster_shared.record import replace

from dagster_slurm_components.jobs.figures import Figure
from dagster_slurm_components.jobs.outputs import Made
from dagster_slurm_components.pipes.context import StepContext, is_direct, is_skippable
from dagster_slurm_components.pipes.outputs import OUTPUT, PULLED, of_asset

MARKDOWN = ("job/usage", "job/chart", "job/notes")


class CompletedJob(dg.PipesClientCompletedInvocation):
    """The results of a job that did its work.

    Args:
        session: The Pipes session in which it ran.
        metadata: The job's figures; they are added to each result.
        made: The job's outputs, of which some metadata may tell at one asset alone.
        stored: Called once when Dagster has stored the results that ``get_results()`` gave: the consumer has come
            back for more and there is none. One that gathers them before it yields them
            (``list(completed.get_results())``) comes back too early.

    Example:
        .. code-block:: python

            completed = compute.run(context=context, payload_path="train.py")
            yield from completed.get_results()
    """

    def __init__(
        self,
        session: dg.PipesSession,
        metadata: Mapping[str, Figure | dg.MetadataValue] | None = None,
        *,
        made: Sequence[Made] = (),
        stored: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(session, metadata)
        self._made = made
        self._stored = stored

    @property
    def check_results(self) -> Sequence[dg.AssetCheckResult]:
        """The check results that the payload reported, with the names of the job."""
        reported = self._session.get_results(
            implicit_materializations=False, metadata=of_check(self.metadata)
        )
        return [result for result in reported if isinstance(result, dg.AssetCheckResult)]

    def get_results(self, *, implicit_materializations: bool = True) -> Sequence[dg.PipesExecutionResult]:
        """Return the results for ``yield from``: materializations, an asset after those it depends on, then checks.

        Dagster wants the materializations of a step in this order, and judges a check against the newest
        materialization that there is (dagster 1.13).

        Args:
            implicit_materializations: Add one for each asset that the payload did not report. An asset that is
                skippable gets none: the payload left it out.
        """
        context = self._session.context
        reported = super().get_results(implicit_materializations=False)
        due = [key for key in context.selected_asset_keys if not is_skippable(context, key)]
        made = materialized(reported, due if implicit_materializations else (), self.metadata)
        own = {
            key: each._replace(metadata=of_asset(self._made, key, each.metadata or {}))
            for key, each in made.items()
        }
        ordered = (own[key] for key in in_order(context, made))
        return _Results(chain(ordered, self.check_results), self._tell)

    def get_materialize_result(self, *, implicit_materialization: bool = True) -> dg.MaterializeResult[Any]:
        """Return the one materialization with its check results. When Dagster stores it is not known."""
        return super(CompletedJob, self._untold).get_materialize_result(
            implicit_materialization=implicit_materialization
        )

    def get_asset_check_result(self) -> dg.AssetCheckResult:
        """Return the one check result. When Dagster stores it is not known."""
        return super(CompletedJob, self._untold).get_asset_check_result()

    @property
    def _untold(self) -> CompletedJob:
        # Dagster's methods for one result look through all of them, and hand it on after that (1.13).
        return CompletedJob(self._session, self.metadata, made=self._made)

    def _tell(self) -> None:
        stored, self._stored = self._stored, None
        if stored is not None:
            stored()


class _Results(list[dg.PipesExecutionResult]):
    """Results that tell when their consumer has come back from the last one."""

    def __init__(self, items: Iterable[dg.PipesExecutionResult], exhausted: Callable[[], None]) -> None:
        super().__init__(items)
        self._exhausted = exhausted

    def __iter__(self) -> Iterator[dg.PipesExecutionResult]:
        yield from super().__iter__()
        self._exhausted()


def materialized(
    reported: Iterable[dg.PipesExecutionResult],
    due: Iterable[dg.AssetKey],
    metadata: Mapping[str, Figure | dg.MetadataValue],
) -> dict[dg.AssetKey, dg.MaterializeResult[Any]]:
    """Return what was reported of assets, and one for each that is due and was not reported, with the metadata."""
    made = {
        result.asset_key: result
        for result in reported
        # Pipes names all of them.
        if isinstance(result, dg.MaterializeResult) and result.asset_key is not None
    }
    return made | {key: dg.MaterializeResult(key, metadata=metadata) for key in due if key not in made}


def in_order(context: StepContext, keys: Iterable[dg.AssetKey]) -> Sequence[dg.AssetKey]:
    """Return the keys of assets so that each stands after those of them that it depends on."""
    given = list(keys)
    if not context.has_assets_def:
        return given
    specs = context.assets_def.specs_by_key
    graph = {key: {dep.asset_key for dep in specs[key].deps} & {*given} - {key} for key in given}
    return list(TopologicalSorter(graph).static_order())


def of_check(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a job's figures that a check shows: the others stand beside what it checks, at the asset."""
    return {name: figures[name] for name in ("job/id", "job/run_directory") if name in figures}


def keep_check_results(session: dg.PipesSession, metadata: Mapping[str, Figure | dg.MetadataValue]) -> None:
    """Store the check results of a job that failed: what its payload had found out by then stays true.

    The step is about to fail, so they can't be yielded; ``log_event`` stores at once. What such a job made of an asset
    is no materialization, so that a check of it is bound to none.
    """
    context = session.context
    if not context.has_assets_def or is_direct(context):
        return
    for result in CompletedJob(session, metadata).check_results:
        evaluation = result.to_asset_check_evaluation(context.get_step_execution_context())
        if evaluation.asset_key in context.selected_asset_keys:
            evaluation = replace(evaluation, target_materialization_data=None)
        context.log_event(evaluation)  # type: ignore[arg-type]  # dagster 1.13 takes it, its annotation is older


def typed(figures: Mapping[str, Figure]) -> dict[str, Figure | dg.MetadataValue]:
    """Return a job's figures as metadata that Dagster plots and links; numbers and text it knows by itself."""

    def value(name: str, figure: Figure) -> Figure | dg.MetadataValue:
        if name == "job/run_directory" or (name.endswith(PULLED) and str(figure).startswith("/")):
            return dg.MetadataValue.path(str(figure))
        if name in MARKDOWN or (name.startswith(OUTPUT) and isinstance(figure, str)):
            return dg.MetadataValue.md(str(figure))
        is_address = isinstance(figure, str) and figure.startswith("http://")
        return dg.MetadataValue.url(str(figure)) if is_address else figure

    return {name: value(name, figure) for name, figure in figures.items()}
