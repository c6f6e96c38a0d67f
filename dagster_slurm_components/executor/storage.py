"""Dagster's storage while a run of many threads goes on: a few connections, which stay open."""

import functools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import dagster as dg
from dagster import EventLogEntry
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

from dagster_slurm_components.executor.dagster_parts import (
    SQLITE_BUSY_TIMEOUT_SECONDS,
    SqliteEventLogStorage,
    SqliteRunStorage,
)
from dagster_slurm_components.pipes.asset_events import DEFERRALS
from dagster_slurm_components.together import Together

_INDEX = "index"
"""Dagster's name for the file with what its assets' newest events are."""
_CONNECTIONS = 8
_GATHER = 0.02
"""Seconds that an event waits for others where many come at a time."""
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
            DEFERRALS[instance] = _RunEvents(events, run_id, stack).defer
            stack.callback(DEFERRALS.pop, instance)
        if isinstance(runs, SqliteRunStorage):
            engine = _engine(runs._conn_string, stack)  # noqa: SLF001
            _replace(runs, "connect", engine.begin, stack)
        instance.optimize_for_webserver(0, _RECYCLE, _CONNECTIONS - 1)
        as_dagster_does = instance.get_event_log_handler

        def handler() -> logging.Handler:
            made = as_dagster_does()
            # `handle` takes a lock, and events would be stored one by one. (From Python 3.13 on it fails with none.)
            made.handle = made.emit  # type: ignore[assignment,method-assign]
            return made

        _replace(instance, "get_event_log_handler", handler, stack)
        yield


class _RunEvents:
    """The files of a run's events and of the index, kept open; what comes together is one transaction of each.

    A transaction is most of an event's cost: 0.5 of 0.8 ms of CPU, and some milliseconds for the disk. The events
    themselves Dagster's own code stores.
    """

    def __init__(self, storage: SqliteEventLogStorage, run_id: str, stack: ExitStack) -> None:
        self._run_id = run_id
        self._lock = storage._db_lock  # noqa: SLF001
        self._connect_anew, self._store_one = storage._connect, storage.store_event  # noqa: SLF001
        self._store_newest = storage._store_asset_event  # noqa: SLF001
        self._engines = {}
        for shard in (run_id, _INDEX):
            with self._connect_anew(shard):  # makes its tables
                self._engines[shard] = _engine(storage.conn_string_for_shard(shard), stack)
        self._own = threading.local()
        """A thread's transactions while it stores several events, and those that it keeps back."""
        self._store_with_others = Together(self._store_all, gather=_GATHER)
        _replace(storage, "_connect", self._connect, stack)
        _replace(storage, "store_event", self._store, stack)
        _replace(storage, "_store_asset_event", self._store_asset, stack)
        # What is true of its tables is asked once: for each materialization Dagster asks it twice.
        _replace(storage, "has_table", functools.cache(storage.has_table), stack)
        columns = storage.has_asset_key_index_cols()
        _replace(storage, "_has_asset_key_index_cols_on_connection", lambda connection: columns, stack)

    def defer(self) -> Callable[[], None]:
        """Keep back this thread's events until what is returned is called."""
        self._own.kept_back = []
        return self._store_kept_back

    def _store_kept_back(self) -> None:
        events, self._own.kept_back = self._own.kept_back, None
        try:
            self._store_all(events)
        except Exception:  # noqa: BLE001 - the first event that can't be stored says so, as it would have by itself
            for event in events:
                self._store_all([event])

    def _store(self, event: EventLogEntry) -> None:
        if event.run_id != self._run_id:
            self._store_one(event)
        elif (kept_back := getattr(self._own, "kept_back", None)) is not None:
            kept_back.append(event)
        else:
            self._store_with_others(event)

    def _store_all(self, events: Sequence[EventLogEntry]) -> Sequence[None]:
        own = self._own
        with self._lock, ExitStack() as transactions:
            own.transactions, own.connections, own.newest = transactions, {}, {}
            try:
                stored = [self._store_one(event) for event in events]
                for newest in own.newest.values():
                    self._store_newest(*newest)
                return stored
            finally:
                own.transactions = None

    def _store_asset(self, connection: Connection, entry: EventLogEntry, event_id: int) -> None:
        """What is newest of an asset is written once for all events that are stored together."""
        event = entry.dagster_event
        if event is None or getattr(self._own, "transactions", None) is None:
            self._store_newest(connection, entry, event_id)
        else:
            self._own.newest[event.asset_key, event.event_type] = connection, entry, event_id

    def _connect(self, shard: str) -> AbstractContextManager[Connection]:
        return self._kept_open(shard) if shard in self._engines else self._connect_anew(shard)

    @contextmanager
    def _kept_open(self, shard: str) -> Iterator[Connection]:
        own = self._own
        if transactions := getattr(own, "transactions", None):
            if shard not in own.connections:
                own.connections[shard] = transactions.enter_context(self._engines[shard].begin())
            yield own.connections[shard]
        else:
            with self._lock, self._engines[shard].begin() as connection:
                yield connection


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


def _replace(owner: object, name: str, method: Callable[..., object], stack: ExitStack) -> None:
    """Have an object use another method, for as long as the run goes on."""
    setattr(owner, name, method)
    stack.callback(delattr, owner, name)
