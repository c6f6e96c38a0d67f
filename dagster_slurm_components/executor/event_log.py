"""Dagster's event log while a run goes on: files of SQLite stay open."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import dagster as dg
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection
from sqlalchemy.pool import QueuePool

from dagster_slurm_components.executor.dagster_parts import SQLITE_BUSY_TIMEOUT_SECONDS, SqliteEventLogStorage

_INDEX = "index"
"""Dagster's name for the file with what its assets' newest events are."""


@contextmanager
def event_log_kept_open(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Keep a run's event log, and the index of all runs' assets, open where they are files of SQLite.

    Dagster makes an SQLAlchemy engine anew for each event (1.13), and with it forgets how its statements are compiled.
    SQLite copies its write-ahead log back, and removes it, whenever the last connection is closed. Most of an event's
    time is that. Other storages (PostgreSQL, MySQL) keep their engine themselves.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        yield
        return
    as_dagster_does = storage._connect  # noqa: SLF001
    engines = {}
    for shard in (run_id, _INDEX):
        with as_dagster_does(shard):  # makes its tables
            pass
        engines[shard] = create_engine(
            storage.conn_string_for_shard(shard),
            poolclass=QueuePool,
            connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        )

    @contextmanager
    def kept_open(shard: str) -> Iterator[Connection]:
        with storage._db_lock, engines[shard].begin() as connection:  # noqa: SLF001
            yield connection

    def connect(shard: str) -> AbstractContextManager[Connection]:
        return kept_open(shard) if shard in engines else as_dagster_does(shard)

    storage._connect = connect  # type: ignore[method-assign, assignment]  # noqa: SLF001
    try:
        yield
    finally:
        del storage._connect  # noqa: SLF001 - the class's own is there again
        for engine in engines.values():
            engine.dispose()
