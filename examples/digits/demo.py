"""Run the whole example, show its progress, and end in a table. Usage: demo.py [PROFILE [SELECTION]]

What it does can be done by hand: ``dg-slurm cluster up`` (for the profile ``staging``),
``dg launch --assets 'group:digits or group:diabetes'`` and ``python report.py``. ``demo.py NAME`` uses
``profiles/NAME.yaml``, whatever it says; SELECTION is any asset selection of Dagster's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from report import pulled, read_run, table
from rich.console import Console
from rich.markup import escape

import slurm_testcluster
from dagster_slurm_components.cli.launching import launch
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.profiles import load_profile

PROJECT = Path(__file__).resolve().parent
HOME = PROJECT / ".dagster"
LOG = HOME / "demo.log"
SELECTION = "group:digits or group:diabetes"

console = Console(highlight=False)


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
        console.print(
            "the agent, which held the connection, ends in 15 minutes: `dg-slurm agent stop` ends it now"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the example.")
    parser.add_argument("profile", nargs="?", default="local")
    parser.add_argument("selection", nargs="?", default=SELECTION, help="any asset selection of Dagster's")
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
        console.print(f"materializing assets: `dg launch --assets '{arguments.selection}'`", markup=False)
        words = ["--assets", arguments.selection]
        report = read_run(instance, launch(instance, words, console, log=LOG, folder=PROJECT)[0])
    console.print(table(report, title=f"digits, profile {profile}"))
    for place in pulled(report):
        console.print(f"brought here: {place}", soft_wrap=True)
    if report.succeeded:
        browser = "cd examples/digits && DAGSTER_HOME=$PWD/.dagster ../../.venv/bin/dg dev"
        console.print(f"in the browser: {browser}", soft_wrap=True)
        return 0
    console.print(f"the whole log is in {LOG}")
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (DagsterSlurmError, slurm_testcluster.ClusterError) as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
