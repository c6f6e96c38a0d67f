"""Dagster's storage while a run of many threads goes on: a few connections, which stay open."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import dagster as dg
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

from dagster_slurm_components.executor.dagster_parts import (
    SQLITE_BUSY_TIMEOUT_SECONDS,
    SqliteEventLogStorage,
    SqliteRunStorage,
)

_INDEX = "index"
"""Dagster's name for the file with what its assets' newest events are."""
_CONNECTIONS = 8
_RECYCLE = 3600
"""Seconds after which a connection to a database server is made anew, as Dagster's webserver does."""


@contextmanager
def storage_kept_open(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Keep what a run reads and writes of Dagster's storage open until the run ends.

    For files of SQLite Dagster makes an engine of SQLAlchemy anew for each event and each query (1.13), which then
    compiles its statements anew: 2.8 ms of CPU an event instead of 0.6. A database server is connected to anew each
    time, by as many threads as there are, where it may have room for a hundred; Dagster's own setting for its
    webserver bounds that.
    """
    with ExitStack() as stack:
        events, runs = instance.event_log_storage, instance.run_storage
        if isinstance(events, SqliteEventLogStorage):
            _keep_events_open(events, run_id, stack)
        if isinstance(runs, SqliteRunStorage):
            engine = _engine(runs._conn_string, stack)  # noqa: SLF001
            _replace(runs, "connect", engine.begin, stack)
        instance.optimize_for_webserver(0, _RECYCLE, _CONNECTIONS - 1)
        yield


def _keep_events_open(storage: SqliteEventLogStorage, run_id: str, stack: ExitStack) -> None:
    as_dagster_does = storage._connect  # noqa: SLF001
    engines = {}
    for shard in (run_id, _INDEX):
        with as_dagster_does(shard):  # makes its tables
            engines[shard] = _engine(storage.conn_string_for_shard(shard), stack)

    @contextmanager
    def kept_open(shard: str) -> Iterator[Connection]:
        with storage._db_lock, engines[shard].begin() as connection:  # noqa: SLF001
            yield connection

    def connect(shard: str) -> AbstractContextManager[Connection]:
        return kept_open(shard) if shard in engines else as_dagster_does(shard)

    _replace(storage, "_connect", connect, stack)


def _engine(url: str, stack: ExitStack) -> Engine:
    made = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=_CONNECTIONS,
        max_overflow=-1,
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )
    stack.callback(made.dispose)
    return made


def _replace(storage: object, name: str, method: Callable[..., object], stack: ExitStack) -> None:
    """Have a storage use another method, for as long as the run goes on."""
    setattr(storage, name, method)
    stack.callback(delattr, storage, name)
