"""What a person reads of a job while it waits and runs: its streams, and a sentence when something changes."""

import codecs
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from dagster_slurm_components.jobs.reconcile import SUBMITTED, Observation
from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.slurm.reasons import explain
from dagster_slurm_components.slurm.states import Phase, state

_TAIL_LINES = 20
_TAIL_BYTES = 8 * 1024


class Stream:
    """One output stream of the job: decoded wherever it is cut, with its last lines kept.

    Args:
        target: Where it is shown.
        begin: The offset of the first bytes that will come.
        seen: The offset up to which it was shown before; what comes below it is kept only.
        label: Begins each line that is shown, where several jobs write to one target; each line is shown whole then.
    """

    def __init__(self, target: Callable[[], TextIO], begin: int = 0, seen: int = 0, label: str = "") -> None:
        self._target = target
        self._label = label
        self._line = ""
        self.position = begin
        self._silent = max(0, seen - begin)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._rest = ""

    def feed(self, data: bytes) -> None:
        """Show bytes of the stream."""
        self.position += len(data)
        old, new = data[: self._silent], data[self._silent :]
        self._silent -= len(old)
        self._keep(self._decoder.decode(old))
        self._put(self._decoder.decode(new))

    def rewind(self) -> None:
        """Another file has taken the place of this one."""
        self.position = self._silent = 0

    def skip(self, size: int, path: str) -> None:
        """Say that bytes were left out."""
        self.finish()
        self._decoder.reset()
        self.position += size
        self._put(f"\n[{size} bytes were left out here; all of it is in {path}]\n")

    def finish(self) -> None:
        """Show what was held back of a character, or a labelled line, that never came whole."""
        self._put(self._decoder.decode(b"", final=True))
        if self._line:
            self._put("\n")

    @property
    def tail(self) -> str:
        """The last lines, at most some kilobytes."""
        return "\n".join([*self._tail, *([self._rest] if self._rest else [])])[-_TAIL_BYTES:]

    def _put(self, text: str) -> None:
        if not text:
            return
        self._keep(text)
        if self._label:
            *lines, self._line = (self._line + text).split("\n")
            text = "".join(f"{self._label}{line}\n" for line in lines)
        target = self._target()  # looked up each time: Dagster replaces the streams for a step
        target.write(text)
        target.flush()

    def _keep(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        self._rest = self._rest[-_TAIL_BYTES:]
        self._tail.extend(line[-_TAIL_BYTES:] for line in lines)


def describe(job_id: str, observation: Observation, status: StatusRecord | None) -> str:
    """Return what a person wants to read about a change in a job's life."""
    again = f" (started anew, {observation.restarts}. time)" if observation.restarts else ""
    if observation.state == SUBMITTED:
        return ""
    match observation.phase:
        case Phase.RUNNING:
            where = f" on {status.get('nodes') or status.host}" if status else ""
            return f"Job {job_id} runs{where}{again}."
        case Phase.WAITING:
            reason, starts_at = observation.reason, observation.starts_at
            why = f", reason {reason}: {explain(reason).text}" if reason else ""
            start = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(starts_at)) if starts_at else ""
            expected = f" Expected start: {start}" if start else ""
            return f"Job {job_id} is {observation.state}{again}{why}{expected}"
        case Phase.ENDING:
            return f"Job {job_id} {_awaited(observation)}"
    return f"Job {job_id} ended: {observation.state}{again}."


def _awaited(observation: Observation) -> str:
    """Say what is waited for at the end of a job."""
    row = state(observation.state)
    if row.phase is Phase.TERMINAL and row.retryable:
        return f"is {row.name}, says Slurm. Waiting to see whether Slurm starts it again."
    if row.phase is Phase.TERMINAL:
        return f"is {row.name}, says Slurm. Waiting for its exit code."
    if observation.exit_code is not None:
        return f"was stopped (exit code {observation.exit_code}). Waiting for Slurm to say why."
    if observation.absent_since is not None:
        return "has left Slurm's queue without an exit code. Waiting for the accounting to say how it ended."
    return f"is {row.name}: {row.explanation}"
