"""Dagster's storage, kept open for a run: it holds what it would hold, and nothing is opened anew."""

from __future__ import annotations

import threading
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage

from dagster_slurm_components.executor.storage import storage_kept_open
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


def test_an_instance_in_memory_is_left_as_it_is() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(nothing)
        with storage_kept_open(instance, run.run_id):
            instance.report_engine_event("an event", run)
        assert len(instance.all_logs(run.run_id)) == 1
