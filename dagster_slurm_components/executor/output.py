"""What each step prints, kept apart although all steps share one process's stdout and stderr.

Dagster captures output by redirecting the process's file descriptors, which can't tell threads apart. Here
``sys.stdout`` and ``sys.stderr`` ask which step is printing (a context variable, which a step's threads inherit) and
hand the text to Dagster's compute log manager, so that the UI shows it as for any other step. What a program writes
that a step starts without a pipe goes to the run's own output.
"""

import io
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

from dagster_slurm_components.executor.dagster_parts import (
    CloudStorageComputeLogManager,
    ComputeIOType,
    ComputeLogManager,
    LocalComputeLogManager,
)

_UPLOAD_EVERY = 30.0


class StepOutput:
    """The output of one step, as the compute log manager keeps it.

    No file stays open in between: a thousand steps would need two thousand.
    """

    def __init__(self, manager: ComputeLogManager, log_key: Sequence[str]) -> None:
        self._cloud = manager if isinstance(manager, CloudStorageComputeLogManager) else None
        self._files = self._cloud.local_manager if self._cloud else manager
        self._lock = threading.Lock()
        self._pieces: dict[ComputeIOType, str] = dict.fromkeys(ComputeIOType, "")
        self._paths: dict[ComputeIOType, Path] = {}
        self._uploaded_at = time.monotonic()
        self.log_key = log_key

    def write(self, kind: ComputeIOType, text: str) -> None:
        """Append text to one of the two streams; what is no whole line yet is held back."""
        with self._lock:
            self._pieces[kind] += text
        if "\n" in text:
            self.flush(kind)

    def flush(self, kind: ComputeIOType) -> None:
        """Write down what was held back of a stream."""
        with self._lock:
            text, self._pieces[kind] = self._pieces[kind], ""
            if not text:
                return
            with self._open(kind) as stream:
                if stream is not None:  # a manager that keeps nothing
                    stream.write(text)
        if self._cloud and time.monotonic() - self._uploaded_at > _UPLOAD_EVERY:
            self._uploaded_at = time.monotonic()
            self._cloud.on_progress(self.log_key)

    def _open(self, kind: ComputeIOType) -> AbstractContextManager[Any]:
        """Open a stream; where a file lies is asked once, which costs more than to write a line."""
        if kind in self._paths:
            return self._paths[kind].open("a", encoding="utf-8")
        opened: AbstractContextManager[Any] = self._files.open_log_stream(self.log_key, kind)
        if isinstance(self._files, LocalComputeLogManager):
            with opened as stream:
                self._paths[kind] = Path(stream.name)
            return self._open(kind)
        return opened

    def close(self) -> None:
        """Mark the output as whole, as the manager does at the end of its own capture (dagster 1.13)."""
        for kind in ComputeIOType:
            self.flush(kind)
        if isinstance(self._files, LocalComputeLogManager):
            done = Path(self._files.complete_artifact_path(self.log_key))
            done.parent.mkdir(parents=True, exist_ok=True)
            done.touch()
        if self._cloud:
            for kind in ComputeIOType:
                self._cloud.upload_to_cloud_storage(self.log_key, kind)
            self._cloud.local_manager.delete_logs(log_key=self.log_key)


_PRINTING: ContextVar[StepOutput | None] = ContextVar("dagster_slurm_step_output", default=None)


class _Router(io.TextIOBase):
    """Writes to the stream that it stands for, and to the output of the step that is printing."""

    def __init__(self, stream: TextIO, kind: ComputeIOType) -> None:
        self._stream = stream
        self._kind = kind

    def write(self, text: str) -> int:
        output = _PRINTING.get()
        if output is not None and text:
            output.write(self._kind, text)
        return self._stream.write(text)

    def flush(self) -> None:
        output = _PRINTING.get()
        if output is not None:
            output.flush(self._kind)
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding


@contextmanager
def routed() -> Iterator[None]:
    """Have what this process prints go to the step that prints it, too."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        _Router(before[0], ComputeIOType.STDOUT),
        _Router(before[1], ComputeIOType.STDERR),
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def captured(manager: ComputeLogManager, run_id: str) -> Iterator[StepOutput]:
    """Keep what this thread prints, and those that it starts in its context, as the output of one step."""
    output = StepOutput(manager, manager.build_log_key_for_run(run_id, uuid4().hex[:8]))
    token = _PRINTING.set(output)
    try:
        yield output
    finally:
        _PRINTING.reset(token)
        output.close()
