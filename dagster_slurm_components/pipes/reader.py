"""Reads the messages file of a run directory: whole lines, at once, without a thread or a sleep of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster_pipes import PipesOpenedData, PipesParams
from dagster_shared.check import CheckError

# "closed" waits with the results: Dagster warns of each message that comes after it.
_HELD = frozenset({"report_asset_materialization", "report_asset_check", "closed"})
_SHOWN_ONCE = frozenset({"log", "log_external_stream"})
"""Messages that are for a person to read, and not part of the results."""
_LONGEST_LINE = 64 * 1024 * 1024


class RunDirectoryMessageReader(dg.PipesMessageReader):
    """A message reader that is fed by whoever follows the job.

    Log lines and custom messages are handed on at once. Results are held until the job has ended: a job that
    Slurm requeues reports them anew, and what its earlier start reported is dropped.

    Args:
        path: The path of ``messages.jsonl`` on the host.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._handler: dg.PipesMessageHandler | None = None
        self._rest = b""
        self._seen = 0
        self._held: list[dict[str, Any]] = []
        self.position = 0
        """Bytes of the file that were taken, in whole lines."""
        self.exception: dict[str, Any] | None = None
        """The exception that the payload ended with, as Pipes reports it, or nothing."""
        self.complaints: list[str] = []
        """Lines that were no Pipes messages, shortened."""

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        """Tell the payload where to write."""
        self._handler = handler
        yield {"path": self._path}

    def on_opened(self, opened_payload: PipesOpenedData) -> None:
        """Do nothing: the payload's greeting needs no answer."""

    def no_messages_debug_text(self) -> str:
        """Say that silence is no failure."""
        return (
            f"The payload wrote no messages to {self._path}. That is fine for one that reports nothing: "
            "success is judged by the exit status."
        )

    def skip(self, seen: int) -> None:
        """Leave out the log lines of the first ``seen`` bytes: a person saw them before. Results are kept."""
        self._seen = seen

    def feed(self, data: bytes) -> None:
        """Take bytes of the messages file, cut anywhere."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                self._take(line, told=self.position < self._seen)
            self.position += len(line) + 1
        if len(self._rest) > _LONGEST_LINE:
            self._complain(self._rest)
            self._rest = b""

    def rewind(self) -> None:
        """Forget what an earlier start of the job reported: it began anew."""
        self._rest = b""
        self._seen = self.position = 0
        self._held.clear()
        self.exception = None

    def finish(self, *, restarts: int = 0) -> None:
        """Hand on the results; the job has ended.

        Args:
            restarts: How often Slurm began it anew. A start that Slurm gave up may still run, on a node that it does
                not hear of, and report what the newer one reports: the last word counts then.
        """
        if restarts:
            self._keep_last_words()
        for message in self._held:
            self._hand_on(message)
        self._held.clear()
        if self._rest.strip():
            self._complain(self._rest)
            self._rest = b""

    def _keep_last_words(self) -> None:
        newest: dict[str, dict[str, Any]] = {}
        for number, message in enumerate(self._held):
            newest[_subject(message) or str(number)] = message
        dropped = len(self._held) - len(newest)
        if dropped:
            self.complaints.append(f"{dropped} of the results that two starts of the job reported")
        self._held = list(newest.values())

    def _take(self, line: bytes, *, told: bool) -> None:
        try:
            message = json.loads(line)
            method, params = message["method"], message.get("params") or {}
        except (ValueError, TypeError, KeyError, AttributeError):
            self._complain(line)
            return
        if method == "closed" and "exception" in params:
            self.exception = params["exception"]
        if method in _HELD:
            self._held.append(message)
        elif not (told and method in _SHOWN_ONCE):
            self._hand_on(message)

    def _hand_on(self, message: dict[str, Any]) -> None:
        if self._handler is None:
            raise RuntimeError("messages are read inside an open Pipes session only")
        try:
            self._handler.handle_message(message)  # type: ignore[arg-type]
        except (dg.DagsterError, CheckError, KeyError, TypeError, ValueError) as error:
            # A message of another protocol, or malformed: the payload's result still counts.
            self._complain(json.dumps(message).encode(), str(error))

    def _complain(self, line: bytes, why: str = "not a Pipes message") -> None:
        self.complaints.append(f"{why}: {line[:200].decode('utf-8', 'replace')}")


def _subject(message: Mapping[str, Any]) -> str | None:
    """Return what a result is about: its asset and check; other messages are about nothing."""
    params = message.get("params") or {}
    names = [str(params.get(name)) for name in ("asset_key", "check_name")]
    return json.dumps([message["method"], *names]) if "asset_key" in params else None
