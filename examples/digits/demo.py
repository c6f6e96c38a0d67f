"""Run the whole example, show its progress, and end in a table. Usage: demo.py [PROFILE [SELECTION]]

What it does can be done by hand: ``dg-slurm cluster up`` (for the profile ``staging``),
``dg launch --assets group:digits`` and ``python report.py``. ``demo.py NAME`` uses ``profiles/NAME.yaml``, whatever
it says; SELECTION is any asset selection of Dagster's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from report import read_run, table
from rich.console import Console
from rich.markup import escape
from rich.status import Status

import slurm_testcluster
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.profiles import load_profile

PROJECT = Path(__file__).resolve().parent
HOME = PROJECT / ".dagster"
LOG = HOME / "demo.log"
BIN = Path(sys.prefix) / "bin"

console = Console(highlight=False)


class DemoError(Exception):
    """Something the demo needs did not work."""


@contextlib.contextmanager
def staging_cluster() -> Iterator[None]:
    """Have a real Slurm on this machine, and take it down again if it was not up before."""
    was_up = slurm_testcluster.status().state == "up"
    console.print("starting a real Slurm on this machine: `dg-slurm cluster up`")
    with console.status("") as status:
        slurm_testcluster.up(report=lambda line: status.update(escape(line)))
    try:
        yield
    finally:
        if was_up or os.environ.get("KEEP"):
            console.print("the cluster stays up: `dg-slurm cluster down` ends it")
        else:
            with console.status("ending the cluster"):
                slurm_testcluster.down()
            console.print("the cluster is down again (KEEP=1 keeps it)")


def newest_run(instance: dg.DagsterInstance) -> str | None:
    """Return the id of the newest run."""
    runs = instance.get_runs(limit=1)
    return runs[0].run_id if runs else None


class Progress:
    """Prints a line for each step that starts or ends, and keeps a count below them on a terminal."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str, status: Status) -> None:
        self._instance, self._run_id, self._status = instance, run_id, status
        self._assets: dict[str, list[str]] = {}
        self._seen = self._done = 0

    def show_new(self) -> None:
        """Print what has happened since the last call."""
        entries = self._instance.all_logs(self._run_id)
        for entry in entries[self._seen :]:
            if entry.dagster_event is not None:
                self._show(entry.dagster_event)
        self._seen = len(entries)
        self._status.update(f"{self._done} of {len(self._assets)} steps done")

    def _show(self, event: dg.DagsterEvent) -> None:
        step = event.step_key or ""
        names = ", ".join(self._assets.get(step, [step]))
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED and event.asset_key:
            self._assets.setdefault(step, []).append(event.asset_key.to_user_string())
        elif event.event_type == dg.DagsterEventType.STEP_START:
            console.print(f"  [cyan]started[/]    {names}")
        elif event.event_type == dg.DagsterEventType.STEP_SUCCESS:
            self._done += 1
            console.print(f"  [green]succeeded[/]  {names}")
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
            console.print(f"  [red]failed[/]     {names}")


def launch(instance: dg.DagsterInstance, selection: str) -> str:
    """Materialize assets by ``dg launch`` and return the run's id."""
    argv = [str(BIN / "dg"), "launch", "--assets", selection]
    before, progress = newest_run(instance), None
    console.print(f"materializing assets: `dg launch --assets {selection}`", markup=False)
    with LOG.open("w") as log, console.status("Dagster loads the definitions") as status:
        process = subprocess.Popen(
            argv, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            ended = False
            while not ended:
                ended = process.poll() is not None
                newest = newest_run(instance)
                if progress is None and newest is not None and newest != before:
                    progress = Progress(instance, newest, status)
                if progress is not None:
                    progress.show_new()
                time.sleep(0 if ended else 0.2)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    run_id = newest_run(instance)
    if run_id is None or run_id == before:
        last = "\n".join(LOG.read_text().splitlines()[-25:])
        raise DemoError(f"no run was started; `dg launch` said:\n{last}")
    return run_id


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the example.")
    parser.add_argument("profile", nargs="?", default="local")
    parser.add_argument(
        "selection", nargs="?", default="group:digits", help="any asset selection of Dagster's"
    )
    arguments = parser.parse_args()
    profile: str = arguments.profile
    HOME.mkdir(exist_ok=True)
    (HOME / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    os.environ.update(DAGSTER_HOME=str(HOME), DAGSTER_SLURM_PROFILE=profile, DIGITS_ENV=sys.prefix)
    with (
        staging_cluster() if profile == "staging" else contextlib.nullcontext(),
        dg.DagsterInstance.get() as instance,
    ):
        load_profile(profile, start=PROJECT)  # a wrong profile is better told here than by the first step
        report = read_run(instance, launch(instance, arguments.selection))
    console.print(table(report, title=f"digits, profile {profile}"))
    for error in report.errors:
        console.print(error, style="red", markup=False)
    if report.succeeded:
        browser = "cd examples/digits && DAGSTER_HOME=$PWD/.dagster ../../.venv/bin/dg dev"
        console.print(f"in the browser: {browser}", soft_wrap=True)
        return 0
    console.print(f"the whole log is in {LOG}")
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (DemoError, DagsterSlurmError, slurm_testcluster.ClusterError) as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
