"""Dagster's storage, kept open for a run: it holds what it would hold, and nothing is opened anew."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import StepMaterializationData
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from dagster_slurm_components.executor.storage import storage_kept_open
from dagster_slurm_components.pipes.asset_events import stored_together
from dagster_slurm_components.pipes.step import RUNS


@dg.job
def nothing() -> None:
    """A job, for a run to be of."""


def test_it_holds_what_several_threads_write_for_everybody(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        run = instance.create_run_for_job(nothing)

        def write(name: str) -> None:
            for number in range(10):
                instance.report_engine_event(f"{name} {number}", run)
            with RUNS:  # Dagster reads, changes and writes tags
                instance.add_run_tags(run.run_id, {name: "done"})

        with storage_kept_open(instance, run.run_id):
            threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            with dg.DagsterInstance.local_temp(str(tmp_path)) as other:
                assert len(other.all_logs(run.run_id)) == 40
                found = other.get_run_by_id(run.run_id)
                assert found is not None
                assert {"a", "b", "c", "d"} <= set(found.tags)
        instance.report_engine_event("and after it", run)
        assert len(instance.all_logs(run.run_id)) == 41


def test_nothing_is_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise AssertionError("an engine is made anew")

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        run = instance.create_run_for_job(nothing)
        with storage_kept_open(instance, run.run_id):
            with monkeypatch.context() as patched:
                patched.setattr(sqlite_event_log, "create_engine", refuse)
                patched.setattr(sqlite_run_storage, "create_engine", refuse)
                instance.report_engine_event("an event", run)
                assert instance.get_run_by_id(run.run_id) is not None
                assert not instance.fetch_materializations(dg.AssetKey("a"), limit=1).records
            # Of another run it is opened as ever.
            other = instance.create_run_for_job(nothing)
            instance.report_engine_event("an event", other)
            assert len(instance.all_logs(other.run_id)) == 1


def test_what_comes_together_is_one_transaction_and_what_fails_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteEventLogStorage.store_event

    def may_fail(self: SqliteEventLogStorage, entry: dg.EventLogEntry) -> None:
        store(self, entry)
        if entry.user_message == "c 7":
            raise ValueError(entry.user_message)

    monkeypatch.setattr(SqliteEventLogStorage, "store_event", may_fail)
    commits: list[Connection] = []
    count = commits.append

    def write(name: str) -> None:
        own = log.with_tags(step_key=name)  # as each step has
        for number in range(10):
            own.info(f"{name} {number}")
            if number % 5 == 0:
                result = dg.AssetMaterialization(dg.AssetKey(f"{name}{number}"), tags={"mine": "1"})
                instance.report_dagster_event(materialized(result), run.run_id)

    def materialized(result: dg.AssetMaterialization) -> dg.DagsterEvent:
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION.value
        return dg.DagsterEvent(kind, run.job_name, event_specific_data=StepMaterializationData(result, []))

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        run = instance.create_run_for_job(nothing)
        with storage_kept_open(instance, run.run_id), ThreadPoolExecutor(20) as pool:
            log = dg.DagsterLogManager.create([], instance=instance, dagster_run=run)
            event.listen(Engine, "commit", count)
            names = "abcdefghijklmnopqrst"
            list(pool.map(write, names))
            event.remove(Engine, "commit", count)
        logs = instance.all_logs(run.run_id)
        said = [entry.user_message for entry in logs if not entry.is_dagster_event]
        assert sorted(said) == sorted(
            f"{name} {number}" for name in names for number in range(10) if (name, number) != ("c", 7)
        )
        assert any("ValueError: c 7" in str(entry) for entry in logs)  # Dagster says so itself
        assert len(commits) < len(logs) / 2
        for name in names:
            (record,) = instance.fetch_materializations(dg.AssetKey(f"{name}5"), limit=10).records
            assert record.event_log_entry.run_id == run.run_id
        assert len(instance.get_asset_records()) == 2 * len(names)


def test_a_thread_s_events_are_kept_back_until_the_end_of_a_block_however_it_ends(tmp_path: Path) -> None:
    asset, seen = dg.AssetKey("a"), []

    def report(partition: int) -> None:
        result = dg.AssetMaterialization(asset, partition=str(partition))
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION.value
        data = StepMaterializationData(result, [])
        instance.report_dagster_event(
            dg.DagsterEvent(kind, run.job_name, event_specific_data=data), run.run_id
        )

    def stored() -> list[str | None]:
        with dg.DagsterInstance.local_temp(str(tmp_path)) as other:
            records = other.fetch_materializations(asset, limit=10).records
            newest = other.get_latest_materialization_event(asset)
            found = [record.partition_key for record in records]
            assert newest is None if not found else newest and newest.asset_materialization
            if newest and newest.asset_materialization:
                assert newest.asset_materialization.partition == found[0]
        return found

    def interrupted(pool: ThreadPoolExecutor) -> None:
        with stored_together(instance) as afterwards:
            for number in range(3):
                report(number)
                afterwards.append(lambda: seen.append(stored()))
            assert stored() == []
            pool.submit(report, 3).result()
            assert stored() == ["3"]
            raise KeyboardInterrupt

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        run = instance.create_run_for_job(nothing)
        with storage_kept_open(instance, run.run_id), ThreadPoolExecutor(1) as pool:
            with pytest.raises(KeyboardInterrupt):
                interrupted(pool)
            assert seen == 3 * [["2", "1", "0", "3"]]
            report(4)
            assert stored() == ["4", "2", "1", "0", "3"]
        with stored_together(instance) as afterwards:  # as without our executor
            report(5)
            assert stored()[0] == "5"
            afterwards.append(lambda: seen.append([]))
        assert seen[3:] == [[]]


def test_an_instance_in_memory_is_left_as_it_is() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(nothing)
        with storage_kept_open(instance, run.run_id):
            instance.report_engine_event("an event", run)
        assert len(instance.all_logs(run.run_id)) == 1
