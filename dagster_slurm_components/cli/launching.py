"""A run of ``dg launch``, followed in Dagster's own records: a line for each asset, and what runs now."""

import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
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
_WORDS = {
    dg.DagsterEventType.STEP_START: ("started", "cyan"),
    dg.DagsterEventType.STEP_SUCCESS: ("succeeded", "green"),
    dg.DagsterEventType.STEP_FAILURE: ("failed", "red"),
    dg.DagsterEventType.STEP_SKIPPED: ("skipped", "yellow"),
}


class _Progress:
    """What the events of a run have said so far; steps that start or end are printed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._assets: dict[str, Counter[str]] = {}
        self._running: dict[str, tuple[float, str, str]] = {}
        """Since when a step runs, its assets, and what it said last."""
        self.failures: dict[str, str] = {}

    def take(self, entry: dg.EventLogEntry) -> None:
        """Take in one entry of the run's log."""
        event, step = entry.dagster_event, entry.step_key or ""
        kind = event.event_type if event else None
        planned = self._assets.get(step, {step: 1}).items()
        names = ", ".join(f"{key} ({many} partitions)" if many > 1 else key for key, many in planned)
        if event and kind is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED and event.asset_key:
            self._assets.setdefault(step, Counter())[event.asset_key.to_user_string()] += 1
        elif kind in _WORDS:
            word, colour = _WORDS[kind]
            self._console.print(Text(f"  {word:10} ", colour) + Text(names, "default"), soft_wrap=True)
            said = self._running.pop(step, (0.0, "", ""))[2]
            if kind is dg.DagsterEventType.STEP_START:
                self._running[step] = (entry.timestamp, names, "")
            if event and kind is dg.DagsterEventType.STEP_FAILURE:
                self.failures[names] = _reason(event) or said
        elif event and kind is dg.DagsterEventType.RUN_FAILURE and not self.failures:
            self.failures["the run"] = event.message or "failed"
        elif step in self._running and int(entry.level) >= 20:  # not what Dagster says for debugging
            self._running[step] = (*self._running[step][:2], entry.user_message.strip())

    def now(self) -> Group:
        """Return what runs now, for how long, and what it said last."""
        shown = list(self._running.values())[:_MOST_SHOWN]
        lines = [
            f"  {format_duration(time.time() - since)}  {names}  " + said.partition("\n")[0]
            for since, names, said in shown
        ]
        return Group(*(Text(line, "dim", no_wrap=True) for line in lines), f"{len(self._running)} steps run")


def _reason(event: dg.DagsterEvent) -> str:
    """Return why a step failed; nothing where it was interrupted, for it has said itself what that means."""
    data = event.step_failure_data
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    told = data.user_failure_data.description if data.user_failure_data else None
    interrupted = error is not None and error.cls_name == "DagsterExecutionInterruptedError"
    return "" if interrupted else (told or (error.message if error else "")).strip()


def launch(
    instance: dg.DagsterInstance, words: Sequence[str], console: Console, *, log: Path, folder: Path
) -> tuple[str, int]:
    """Run ``dg launch`` with these words in a folder, and show its progress; return the run's id and dg's exit status.

    What dg prints goes to the file ``log``. At the end it is told what failed, and why.

    Raises:
        DagsterSlurmError: No run was started; the message has dg's last words.
    """
    argv = [shutil.which("dg", path=str(Path(sys.executable).parent)) or "dg", "launch", *words]
    progress, run_id, cursor, began = _Progress(console), "", None, datetime.now(timezone.utc)
    with (
        log.open("wb") as output,
        Live("Dagster loads the definitions", console=console, transient=True) as live,
    ):
        process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        # A Ctrl-C reaches dg, too, from the terminal: its steps end as they should, and what they say is still shown.
        handlers: dict[int, Callable[..., None]] = {
            signal.SIGTERM: lambda number, frame: process.send_signal(number),
            signal.SIGINT: lambda number, frame: None,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
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
        finally:
            process.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
    if not run_id:
        lines = log.read_text("utf-8", "replace").splitlines()
        said = "\n".join([line for line in lines if line.strip(" |│╭╰─") == line][-3:])
        raise DagsterSlurmError(f"no run was started; `dg launch` said:\n{said}", where=str(log))
    for names, why in progress.failures.items():
        console.print(f"{names}: {why}", style="red", markup=False, soft_wrap=True)
    return run_id, process.returncode


def _own_run(instance: dg.DagsterInstance, began: datetime) -> str:
    """Return the run that dg made, once it is there; those of the UI and the daemon have a remote origin."""
    young = instance.get_run_records(dg.RunsFilter(created_after=began), ascending=True)
    own = [each.dagster_run.run_id for each in young if each.dagster_run.remote_job_origin is None]
    return own[0] if own else ""
