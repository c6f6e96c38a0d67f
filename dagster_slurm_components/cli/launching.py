"""A run of ``dg launch``, followed in Dagster's own records: a line for each asset, and what runs now."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.units import format_duration

_PAUSE = 0.25
_MOST_SHOWN = 15
_ENDS = {
    dg.DagsterEventType.STEP_SUCCESS: ("succeeded", "green"),
    dg.DagsterEventType.STEP_FAILURE: ("failed", "red"),
    dg.DagsterEventType.STEP_SKIPPED: ("skipped", "yellow"),
}


class _Progress:
    """What the events of a run have said so far; steps that start or end are printed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._assets: dict[str, list[str]] = {}
        self._running: dict[str, tuple[float, str]] = {}
        """Since when a step runs, and the last line that it has said."""
        self._ended = 0
        self.failures: dict[str, str] = {}

    def take(self, entry: dg.EventLogEntry) -> None:
        """Take in one entry of the run's log."""
        event, step = entry.dagster_event, entry.step_key or ""
        kind = event.event_type if event else None
        if event and kind is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED and event.asset_key:
            self._assets.setdefault(step, []).append(event.asset_key.to_user_string())
        elif kind is dg.DagsterEventType.STEP_START:
            self._running[step] = (entry.timestamp, "")
            self._tell("started", "cyan", step)
        elif event and kind in _ENDS:
            self._running.pop(step, None)
            self._ended += 1
            self._tell(*_ENDS[kind], step)
            if kind is dg.DagsterEventType.STEP_FAILURE:
                self.failures[self._names(step)] = _reason(event)
        elif event and kind is dg.DagsterEventType.RUN_FAILURE and not self.failures:
            self.failures["the run"] = event.message or "failed"
        elif step in self._running and int(entry.level) >= 20:  # not what Dagster says for debugging
            self._running[step] = (self._running[step][0], entry.user_message.strip().partition("\n")[0])

    def now(self) -> Group:
        """Return what runs now, for how long, and what it said last."""
        shown = list(self._running.items())[:_MOST_SHOWN]
        lines = [
            Text(
                f"  {self._names(step)}  {format_duration(time.time() - since)}  {said}", "dim", no_wrap=True
            )
            for step, (since, said) in shown
        ]
        count = f"{self._ended} of {len(self._assets)} steps ended, {len(self._running)} run"
        return Group(*lines, Text(count))

    def _names(self, step: str) -> str:
        return ", ".join(self._assets.get(step, [step]))

    def _tell(self, word: str, colour: str, step: str) -> None:
        self._console.print(
            Text(f"  {word:10} ", colour), self._names(step), sep="", markup=False, soft_wrap=True
        )


def _reason(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    told = data.user_failure_data.description if data.user_failure_data else None
    return (told or (error.message if error else "")).strip()


@contextmanager
def dagster_home() -> Iterator[None]:
    """Have a DAGSTER_HOME: else, as for `dg launch`, a temporary one with the settings of this folder."""
    if os.environ.get("DAGSTER_HOME"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="dg-slurm-launch-") as folder:
        settings = Path("dagster.yaml")
        (Path(folder) / settings).write_bytes(settings.read_bytes() if settings.is_file() else b"")
        os.environ["DAGSTER_HOME"] = folder
        try:
            yield
        finally:
            del os.environ["DAGSTER_HOME"]


def launch(
    instance: dg.DagsterInstance, words: Sequence[str], console: Console, *, log: Path, folder: Path
) -> tuple[str, int]:
    """Run ``dg launch`` with these words in a folder, and show its progress; return the run's id and dg's exit status.

    What dg prints goes to the file ``log``. At the end it is told what failed, and why.

    Raises:
        DagsterSlurmError: No run was started; the message has dg's last words.
    """
    beside = shutil.which("dg", path=str(Path(sys.executable).parent))
    argv = [beside or "dg", "launch", *words]
    progress, run_id, cursor, began = _Progress(console), "", None, datetime.now(timezone.utc)
    with (
        log.open("wb") as output,
        Live(Text("Dagster loads the definitions"), console=console, transient=True) as live,
    ):
        process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        before = signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
        try:
            over = False
            while not over:
                over = process.poll() is not None  # looked at first: what it wrote last must not be missed
                run_id = run_id or _own_run(instance, began)
                more = bool(run_id)
                while more:
                    news = instance.get_records_for_run(run_id, cursor)
                    for record in news.records:
                        progress.take(record.event_log_entry)
                    cursor, more = news.cursor, news.has_more
                if run_id:
                    live.update(progress.now() if console.is_terminal else "")
                time.sleep(0 if over else _PAUSE)
        except KeyboardInterrupt:
            pass  # the terminal has told dg, too: its steps end as they should
        finally:
            process.wait()
            signal.signal(signal.SIGTERM, before)
    if not run_id:
        said = [
            line for line in log.read_text("utf-8", "replace").splitlines() if line.strip(" |│╭╰─") == line
        ]
        raise DagsterSlurmError(
            "no run was started; `dg launch` said:\n" + "\n".join(said[-3:]), where=str(log)
        )
    for names, why in progress.failures.items():
        console.print(f"{names}: {why}", style="red", markup=False, soft_wrap=True)
    return run_id, process.returncode


def _own_run(instance: dg.DagsterInstance, began: datetime) -> str:
    """Return the run that dg made, once it is there; those of the UI and the daemon have a remote origin."""
    young = instance.get_run_records(dg.RunsFilter(created_after=began), ascending=True)
    own = [each.dagster_run.run_id for each in young if each.dagster_run.remote_job_origin is None]
    return own[0] if own else ""
