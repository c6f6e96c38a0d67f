"""Reports to Dagster what came of a job that no step follows: results as runless events, a failure as a failed run.

Each is stored once. Who reports has the job's lease, and nobody else reports then. Where an earlier process may have
begun, what it stored is looked for first: each event names the run directory, and was stored after the job had ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

import dagster as dg
from dagster_pipes import PipesMessage

from dagster_slurm_components.jobs.figures import Figure
from dagster_slurm_components.jobs.outputs import Made
from dagster_slurm_components.pipes.asset_events import materializations, newest
from dagster_slurm_components.pipes.left.leave import LeftCheck, LeftRecord
from dagster_slurm_components.pipes.messages import CHECK, MATERIALIZATION
from dagster_slurm_components.pipes.outputs import of_asset
from dagster_slurm_components.pipes.private import private_parts
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.pipes.records import JOB, PROFILE
from dagster_slurm_components.pipes.results import materialized, of_check
from dagster_slurm_components.pipes.tags import LEFT
from dagster_slurm_components.spec.run_override import TAGS

with private_parts("keeps what its events are made of in another place"):
    # What makes a run one that was to make an asset.
    from dagster._core.events import AssetMaterializationPlannedData

Metadata = Mapping[str, Figure | dg.MetadataValue]
Event = dg.AssetMaterialization | dg.AssetCheckEvaluation
RUN_DIRECTORY = "job/run_directory"
_SLACK = 1.0
"""Seconds by which the clocks of two machines that evaluate the sensor may differ."""
_PAGE = 100
_ENDS = UUID("2f0a3c58-1c0e-4d0a-9b2b-6d1c5c1f7a10")
"""Names the runs that stand for jobs that failed: the same job, the same run."""
_KEPT = ("dagster/partition", "dagster/asset_partition_range_", TAGS)
"""How those tags begin by which a re-execution of a failed run makes the same partition, and asks for the same."""


class _Results(dg.PipesMessageHandler):
    """Takes results alone: log lines and the like stand in the run directory, and there is no step to log them."""

    def __init__(self, reader: RunDirectoryMessageReader) -> None:
        super().__init__(None, reader)  # type: ignore[arg-type]  # a step's context: for what is left out here

    def handle_message(self, message: PipesMessage) -> None:
        """Take a message."""
        if message["method"] in (MATERIALIZATION, CHECK):
            super().handle_message(message)


def read_results(
    messages: Iterable[bytes], record: LeftRecord, path: str
) -> tuple[Sequence[dg.PipesExecutionResult], RunDirectoryMessageReader]:
    """Return what a payload reported, by the bytes of its messages file, and the reader, which knows the rest."""
    reader = RunDirectoryMessageReader(path, record.selection)
    handler = _Results(reader)
    with handler.handle_messages():
        for piece in messages:
            reader.feed(piece)
        reader.finish()
    return handler.get_reported_results(), reader


@dataclass(frozen=True)
class Report:
    """What came of one left job, on its way to Dagster.

    Attributes:
        figures: The job's figures; they are added to each result.
        since: When the job was seen to have ended, if an earlier process may have begun to report; seconds since the
            epoch.
        made: The job's outputs.
        still_ours: Raises when this process is not sure any more that nobody else reports.
    """

    instance: dg.DagsterInstance
    record: LeftRecord
    figures: Metadata
    since: float | None
    still_ours: Callable[[], None]
    made: Sequence[Made] = ()

    def success(self, reported: Sequence[dg.PipesExecutionResult]) -> None:
        """Report a job that did its work: materializations, an asset after those it depends on, then checks."""
        record = self.record
        complete = [self._with_figures(result) for result in reported]
        due = [asset.asset_key for asset in record.assets if not asset.skippable]
        made = {
            key: each._replace(metadata=of_asset(self.made, key, each.metadata or {}))
            for key, each in materialized(complete, due, self.figures).items()
        }
        for event in materializations(self.instance, record.assets, made, record.partition_keys):
            self._store(event)
        checked = [result for result in complete if isinstance(result, dg.AssetCheckResult)]
        missing = record.selection.checks - {_key(result) for result in checked}
        for result in [*checked, *map(self._unreported, sorted(missing))]:
            self._store(self._evaluation(result, failed=False))

    def failure(self, reported: Sequence[dg.PipesExecutionResult], text: str, *, cancelled: bool) -> None:
        """Report a job that did not: the checks that its payload had reported by then, and a run that failed.

        Dagster (1.13, open source) keeps failures of assets by their runs alone: an asset or partition has failed when
        the last run that was to make it did. So a run is made that stands for the job's end. It ran nothing; it can be
        re-executed as any other, and sensors of failed runs see it. Of a job that was cancelled it is a cancelled run.
        """
        for result in map(self._with_figures, reported):
            if isinstance(result, dg.AssetCheckResult):
                self._store(self._evaluation(result, failed=True))
        self.still_ours()
        instance, run_id = self.instance, str(uuid5(_ENDS, f"{self._run_dir} {self.figures['job/id']}"))
        run = instance.get_run_by_id(run_id)
        planned = self._planned(run_id) if run is not None else set()
        run = run or instance.add_run(self._run(run_id))
        if run.is_finished:
            return
        for key in self.record.keys:
            for partition in self.record.partition_keys:
                if (key, partition) not in planned:
                    self._plan(run, key, partition)
        if cancelled:
            instance.report_run_canceled(run, text)
        else:
            instance.report_run_failed(run, text)

    @property
    def _run_dir(self) -> str:
        value = self.figures[RUN_DIRECTORY]
        return str(value.value if isinstance(value, dg.MetadataValue) else value)

    def _with_figures(self, result: dg.PipesExecutionResult) -> dg.PipesExecutionResult:
        figures = self.figures if isinstance(result, dg.MaterializeResult) else of_check(self.figures)
        metadata: dict[str, Any] = {**(result.metadata or {}), **figures}
        return result._replace(metadata=metadata)

    def _store(self, event: Event) -> None:
        self.still_ours()
        if self.since is None or not self._is_stored(event, self.since - _SLACK):
            self.instance.report_runless_asset_event(event)

    def _is_stored(self, event: Event, since: float) -> bool:
        match event:
            case dg.AssetCheckEvaluation():
                stored = self._checks(event, since)
            case _:
                stored = self._made(event, since)
        return any(
            when >= since and RUN_DIRECTORY in metadata and metadata[RUN_DIRECTORY].value == self._run_dir
            for when, metadata in stored
        )

    def _made(
        self, event: dg.AssetMaterialization, since: float
    ) -> Iterable[tuple[float, Mapping[str, dg.MetadataValue]]]:
        partitions = None if event.partition is None else [event.partition]
        wanted = dg.AssetRecordsFilter(event.asset_key, asset_partitions=partitions, after_timestamp=since)
        for record in self.instance.fetch_materializations(wanted, limit=_PAGE).records:
            if record.asset_materialization is not None:
                yield record.timestamp, record.asset_materialization.metadata

    def _checks(
        self, event: dg.AssetCheckEvaluation, since: float
    ) -> Iterable[tuple[float, Mapping[str, dg.MetadataValue]]]:
        history = self.instance.event_log_storage.get_asset_check_execution_history
        cursor = None
        while records := history(event.asset_check_key, limit=_PAGE, cursor=cursor):
            for record in records:  # the newest first
                if record.create_timestamp < since:
                    return
                evaluation = record.evaluation
                if (
                    isinstance(evaluation, dg.AssetCheckEvaluation)
                    and evaluation.partition == event.partition
                ):
                    yield record.create_timestamp, evaluation.metadata
            cursor = records[-1].id

    def _evaluation(self, result: dg.AssetCheckResult, *, failed: bool) -> dg.AssetCheckEvaluation:
        key = _key(result)
        spec = next((each for each in self.record.checks if each.key == key), LeftCheck("", "", False, False))
        partitions = self.record.partition_keys
        single = partitions[0] if len(partitions) == 1 else None
        # What a job that failed made of an asset is no materialization.
        bound = (
            None
            if failed and key.asset_key in self.record.keys
            else newest(self.instance, key.asset_key, single)
        )
        return dg.AssetCheckEvaluation(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=result.passed,
            metadata=result.metadata,
            target_materialization_data=bound,
            severity=result.severity,
            description=result.description,
            blocking=spec.blocking,
            partition=single if spec.partitioned else None,
        )

    def _unreported(self, key: dg.AssetCheckKey) -> dg.AssetCheckResult:
        why = "The job ended well, but its payload did not report this check."
        result = dg.AssetCheckResult(passed=False, asset_key=key.asset_key, check_name=key.name)
        return result._replace(metadata=of_check(self.figures), description=why)

    def _run(self, run_id: str) -> dg.DagsterRun:
        record = self.record
        left_by = self.instance.get_run_by_id(record.run_id)
        tags = left_by.tags if left_by is not None else {}
        own = {
            LEFT: f"the end of a job that run {record.run_id} left",
            PROFILE: str(self.figures["job/profile"]),
            JOB: str(self.figures["job/id"]),
            "dagster/max_retries": "0",  # whether it is run again is for a person to say, or for automation
        }
        run = dg.DagsterRun(
            job_name=record.job_name,
            run_id=run_id,
            asset_selection=frozenset(record.keys),
            asset_check_selection=None if record.keys else record.selection.checks,
            tags={**{name: value for name, value in tags.items() if name.startswith(_KEPT)}, **own},
        )
        if left_by is None:
            return run
        # So that it can be re-executed.
        return run._replace(
            run_config=left_by.run_config,
            job_snapshot_id=left_by.job_snapshot_id,
            execution_plan_snapshot_id=left_by.execution_plan_snapshot_id,
            remote_job_origin=left_by.remote_job_origin,
            job_code_origin=left_by.job_code_origin,
            has_repository_load_data=left_by.has_repository_load_data,
        )

    def _planned(self, run_id: str) -> set[tuple[dg.AssetKey, str | None]]:
        planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        entries = self.instance.all_logs(run_id, of_type=planned)
        data = [
            entry.dagster_event.asset_materialization_planned_data for entry in entries if entry.dagster_event
        ]
        return {(each.asset_key, each.partition) for each in data}

    def _plan(self, run: dg.DagsterRun, key: dg.AssetKey, partition: str | None) -> None:
        data = AssetMaterializationPlannedData(key, partition=partition)
        event = dg.DagsterEvent.build_asset_materialization_planned_event(
            run.job_name, self.record.step, data
        )
        self.instance.report_dagster_event(event, run_id=run.run_id)


def _key(result: dg.AssetCheckResult) -> dg.AssetCheckKey:
    if result.asset_key is None or result.check_name is None:
        raise ValueError("a check's result names no check")  # Pipes names both
    return dg.AssetCheckKey(result.asset_key, result.check_name)
