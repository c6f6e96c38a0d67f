"""Reads the messages file of a run directory: whole lines, at once, without a thread or a sleep of its own."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import dagster as dg
from dagster_pipes import PipesException, PipesMessage, PipesParams
from dagster_shared.check import CheckError

from dagster_slurm_components.jobs.lines import Lines
from dagster_slurm_components.pipes.context import Selection
from dagster_slurm_components.pipes.message_metadata import without_complex
from dagster_slurm_components.pipes.messages import (
    CHECK,
    CLOSED,
    MATERIALIZATION,
    Complaint,
    Message,
    excerpt,
    parse,
    subject,
)

LOG = "log"
_SHOWN_ONCE = frozenset({LOG, "log_external_stream"})
"""Messages that are for a person to read, and not part of the results."""
_MOST_REMARKS = 20
# What Dagster raises for a table or a value that it does not take; an error of its storage is none of these.
_REFUSALS = (dg.DagsterError, CheckError, KeyError, TypeError, ValueError, AttributeError)

Key = dg.AssetKey | dg.AssetCheckKey


class RunDirectoryMessageReader(dg.PipesMessageReader):
    """A message reader that is fed by whoever follows the job.

    Log lines and custom messages are handed on at once. Results are held until the job has ended: a job that
    Slurm requeues reports them anew, and what its earlier start reported is dropped. Of several reports of one asset
    or check the last counts. What Dagster would not take is named and left out; it never ends a step.

    Args:
        path: The path of ``messages.jsonl`` on the host.
        selection: Results of these assets and checks only are taken; of any, without a selection.
        label: Begins each log line, where several payloads report to one step.
    """

    def __init__(self, path: str, selection: Selection | None = None, label: str = "") -> None:
        self._path = path
        self._label = label
        self._handler: dg.PipesMessageHandler | None = None
        self._selection = selection
        self._complaints = _Remarks()
        self._notes = _Remarks()
        self.rewind()

    def rewind(self) -> None:
        """Forget what an earlier start of the job reported: it began anew."""
        self._lines = Lines()
        self._seen = 0
        self._results: dict[Key, Message] = {}
        self._reports = Counter[Key]()
        self._closed: Message | None = None

    @property
    def position(self) -> int:
        """Bytes of the file that were taken, in whole lines."""
        return self._lines.position

    @property
    def exception(self) -> PipesException | None:
        """The exception that the payload ended with, as Pipes reports it, or nothing."""
        return self._closed.params.get("exception") if self._closed else None

    @property
    def complaints(self) -> Sequence[str]:
        """What was left out or changed, in sentences; the first twenty, and how many more there are."""
        return [f"{self._label}{each}" for each in self._complaints.sentences]

    @property
    def notes(self) -> Sequence[str]:
        """What was left out since this run does not ask for it, in sentences; as many."""
        return [f"{self._label}{each}" for each in self._notes.sentences]

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        """Tell the payload where to write."""
        self._handler = handler
        yield {"path": self._path}

    @property
    def expected_writer_count(self) -> int:
        """One payload writes; Dagster's own answer is the same, and warns of being a preview (1.13)."""
        return 1

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
        for begin, line in self._lines.feed(data):
            if isinstance(line, bytes):
                self._take(line, shown=begin < self._seen)
            else:
                self._complain(f"longer than any message may be: {line.size} bytes, {excerpt(line.begin)}")

    def finish(self) -> None:
        """Hand on the results; the job has ended."""
        self._take(self._lines.rest())  # a whole message, if only its line's end is missing
        for key, times in self._reports.items():
            if times > 1:
                self._complaints.add(
                    f"The payload reported {subject(self._results[key])} {times} times; the last one counts."
                )
        for message in self._results.values():
            self._hand_on(message)
        if self._closed:  # Dagster warns of each message that comes after it
            self._hand_on(self._closed)
        self._results.clear()
        self._reports.clear()

    def _take(self, line: bytes, *, shown: bool = False) -> None:
        if not line.strip():
            return
        message = parse(line)
        if isinstance(message, Complaint):
            self._complain(message.text)
        elif message.method in (MATERIALIZATION, CHECK):
            self._keep(message)
        elif message.method == CLOSED:
            # Of several processes that close, the one that failed has more to say.
            self._closed = message if message.params or self._closed is None else self._closed
        elif not (shown and message.method in _SHOWN_ONCE):
            if self._label and message.method == LOG:
                params = {**message.params, "message": f"{self._label}{message.params['message']}"}
                message = replace(message, params=params)
            self._hand_on(message)

    def _keep(self, message: Message) -> None:
        key, selection = _key(message), self._selection
        if selection and (objection := selection.objection(key)):
            remarks = self._notes if key in selection.others else self._complaints
            remarks.add(f"The payload's report of {subject(message)} was left out: {objection}.")
            return
        self._reports[key] += 1
        self._results[key] = message
        for note in message.notes:
            self._complaints.add(note)

    def _hand_on(self, message: Message) -> None:
        error = self._refusal(message)
        if error and message.params.get("metadata"):
            # One table that Dagster does not take must not cost the result; it is shown as JSON.
            self._complaints.add(f"Metadata of {subject(message)}: tables are shown as JSON, for {error}")
            plain = without_complex(message.params["metadata"])
            message = replace(message, params={**message.params, "metadata": plain})
            error = self._refusal(message)
        if error:
            self._complain(f"{error} in a message of the method {message.method}")

    def _refusal(self, message: Message) -> str:
        """Give Dagster a message, and return why it does not take it."""
        if self._handler is None:
            raise RuntimeError("messages are read inside an open Pipes session only")
        whole = PipesMessage(method=message.method, params=dict(message.params))  # type: ignore[typeddict-item]
        try:
            self._handler.handle_message(whole)
        except _REFUSALS as error:
            return " ".join(f"{type(error).__name__}: {error}".split())[:500]
        return ""

    def _complain(self, text: str) -> None:
        self._complaints.add(f"A line of the messages file was left out: {text}")


class _Remarks:
    """Sentences, each once; the first ones are kept and the others counted."""

    def __init__(self) -> None:
        self._kept: dict[str, None] = {}
        self._more = 0

    def add(self, text: str) -> None:
        if len(self._kept) < _MOST_REMARKS or text in self._kept:
            self._kept[text] = None
        else:
            self._more += 1

    @property
    def sentences(self) -> Sequence[str]:
        return [*self._kept, *([f"And {self._more} more of this kind."] if self._more else [])]


def _key(message: Message) -> Key:
    asset = dg.AssetKey.from_escaped_user_string(message.params["asset_key"])
    return dg.AssetCheckKey(asset, message.params["check_name"]) if message.method == CHECK else asset
