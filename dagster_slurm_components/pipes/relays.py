"""Files of a running job that come here as they grow, and what is run here with them.

It is a guest of the step: it has a thread of its own, one look at a time, and whatever goes wrong in it is a warning.
"""

import contextvars
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from dagster_slurm_components.errors import DagsterSlurmError, HostUnreachableError
from dagster_slurm_components.jobs.figures import Figure
from dagster_slurm_components.jobs.mirror import Brought, Mirror
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.run_here import run_here
from dagster_slurm_components.pipes.claim import JobCall
from dagster_slurm_components.pipes.outputs import PULLED
from dagster_slurm_components.pipes.pull import place_here
from dagster_slurm_components.slurm.states import Phase
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.relay import COMPLAINTS, NEWS, Relay
from dagster_slurm_components.units import format_size

_MOST_DOUBLED = 5
"""How often the pause between two looks is doubled, at most, while all goes wrong."""
_PATIENCE = 600.0
"""Seconds for which the last look, after the job's end, waits for a lost host."""
_HURRY = 20.0
"""Seconds that the last look may take where the step does not end well by itself, as when a person cancels it."""
_AGAIN, _BEGINS, _LISTEN, _LEAVE = 5.0, 2.0, 0.5, 5.0


class Relays:
    """Brings what a script's `relay` names, while a job is followed; use it as a context.

    Once the job has ended the context waits, at its end, for the last look. ``ended`` says whether it has.
    """

    def __init__(self, call: JobCall, handle: JobHandle, ended: Callable[[], bool]) -> None:
        self._call, self._ended = call, ended
        self._last, self._stop = threading.Event(), threading.Event()
        relay = call.resolved.script.relay or Relay()
        self._each = [_Files(call, handle, name, relay) for name in relay.files]
        run = contextvars.copy_context().run  # what its commands print is the step's
        self._thread = threading.Thread(
            target=run, args=(self._run,), name="dagster-slurm-relay", daemon=True
        )

    @property
    def figures(self) -> dict[str, Figure]:
        """Where the files are on this machine."""
        there = [each for each in self._each if os.path.isdir(each.folder)]
        return {f"relay/{each.name}{PULLED}": str(each.folder) for each in there}

    def __enter__(self) -> Self:
        if self._each:
            try:
                self._thread.start()
            except RuntimeError as error:  # this machine has no thread left
                self._call.step.context.log.warning(
                    f"No files of `relay` will come: {error}. The job goes on."
                )
                self._each = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._each:
            return
        try:
            if self._ended():
                self._last.set()
                self._wait(None if error is None else _HURRY)
        finally:
            self._stop.set()
            self._last.set()
            self._thread.join(_LEAVE)  # a call to a host that hangs is left alone

    def _wait(self, seconds: float | None) -> None:
        """Wait for the last look; without a limit for as long as this process speaks for its run."""
        if seconds is not None:
            self._thread.join(seconds)
        while seconds is None and self._thread.is_alive():
            self._call.guard.check()
            self._thread.join(_LISTEN)

    def _run(self) -> None:
        while not self._last.is_set():
            begun, now = self._call.observation.phase is not Phase.WAITING, time.monotonic()
            for each in self._each:
                if begun and each.at <= now and not self._last.is_set():
                    each.look(self._last)
            due = min(each.at for each in self._each) - time.monotonic()
            self._last.wait(max(_LISTEN, due) if begun else _BEGINS)
        for each in self._each:
            if not self._stop.is_set():
                each.look(self._stop, last=True)


class _Files:
    """The files of one name."""

    def __init__(self, call: JobCall, handle: JobHandle, name: str, relay: Relay) -> None:
        self._files = files = relay.files[name]
        self.name, self._every = name, relay.seconds(name)
        self._call, self._log, place = call, call.step.context.log, call.place
        self.folder = place_here(call.resolved.profile, place.workdir, handle) / name
        self._argv = files.command(name)
        source, most = f"{handle.run_dir}/payload", files.most
        self._mirror = Mirror(place.direct.satellite, source, files.path, self.folder, most)
        self._stop = threading.Event()
        self._changed: set[str] = set()
        self._failures = 0
        self._warned: set[str] = set()
        self.at = time.monotonic() + self._every
        """When it is looked for more."""

    def look(self, stop: threading.Event, *, last: bool = False) -> None:
        """Bring what there is, and run the command with that, until that has ended or ``stop`` is set."""
        self._stop = stop
        brought = self._bring(last=last)
        if brought is not None:
            self._changed |= brought.changed
            if brought.full:
                text = f"more than `max` {self._files.max} was there, and the rest is not brought"
                self._warn("max", text, "Raise `max`, or name fewer files.", last=last)
        runs = self._changed and self._argv
        good = (not runs or self._run_command(last=last)) and brought is not None
        self._failures = 0 if good else min(self._failures + 1, _MOST_DOUBLED)
        least = self._call.place.watcher.pace(brought.operations if brought else 1)
        self.at = time.monotonic() + max(self._every * 2**self._failures, least)
        if last and brought is not None and not stop.is_set():
            count, size = self._mirror.here()
            self._log.info(
                f"Relay `{self.name}`: {count:,} files, {format_size(size)}, are here: {self.folder}"
            )

    def _bring(self, *, last: bool) -> Brought | None:
        """Bring what there is, or tell why that can't be done."""
        until = time.monotonic() + (_PATIENCE if last else 0)
        while True:
            try:
                return self._mirror.look(self._stop, last=last)
            except HostUnreachableError as error:  # of which the watcher tells, while the job runs
                if time.monotonic() < until and not self._stop.wait(_AGAIN):
                    continue
                if last:
                    self._warn("host", str(error), "The rest is in the run directory.", last=last)
            except (DagsterSlurmError, OSError, ValueError) as error:
                self._warn("files", str(error), "What has come is kept; the next look goes on.", last=last)
            return None

    def _run_command(self, *, last: bool) -> bool:
        paths = [str(self.folder / name) for name in sorted(self._changed)]
        argv = [word for given in self._argv for word in (paths if given == NEWS else (given,))]
        ran = run_here(argv, self.folder, duration_seconds(self._files.timeout), self._stop)
        if ran.output:
            sys.stdout.write(textwrap.indent(f"{ran.output}\n", f"[relay {self.name}] ", lambda line: True))
        complaint = COMPLAINTS.get(Path(argv[0]).name)
        complains = complaint is not None and complaint in ran.output
        if complains and not (
            ran.wrong or last
        ):  # it may well be that there is more to come: it is tried again then
            return True
        wrong = ran.wrong or ("did not work" if complains else "")
        if not wrong:
            self._changed.clear()
        else:
            tail = f"\n{ran.output}\n" if ran.output else " "
            hint = f"`run` says what is run, with {sys.executable}'s programs beside those on PATH; [] is nothing."
            self._warn("command", f"`{argv[0]}` {wrong}.{tail}", hint, last=last)
        return not wrong

    def _warn(self, kind: str, text: str, hint: str, *, last: bool) -> None:
        """Tell of each kind of trouble once, and at the end of what remains; nothing where nobody waits."""
        if self._stop.is_set() or (kind in self._warned and not last):
            return
        self._warned.add(kind)
        at = self._call.resolved.position("relay", self.name)
        told = f"Relay `{self.name}`{f' ({at})' if at else ''}: {text.rstrip()}\n{hint} The job is not concerned."
        self._log.warning(told if last else f"{told} It is tried again, less and less often.")
