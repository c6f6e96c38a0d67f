"""Show the newest run of this project as a table: what each asset is now, where it ran, what it says.

Reads the Dagster instance that DAGSTER_HOME names: ``DAGSTER_HOME=$PWD/.dagster python report.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import dagster as dg
from rich.console import Console
from rich.table import Table

# What is told of the job and of its outputs, apart from what the payload reported.
JOB, OUTPUT = "job/", "output/"


@dataclass
class AssetReport:
    """What a run made of one asset."""

    key: str
    state: str = "not run"
    seconds: float | None = None
    payload: dict[str, object] = field(default_factory=dict)
    job: dict[str, object] = field(default_factory=dict)
    outputs: dict[str, object] = field(default_factory=dict)
    checks: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class RunReport:
    """What a run made of all its assets, and why it failed if it did."""

    assets: list[AssetReport]
    errors: list[str]

    @property
    def succeeded(self) -> bool:
        """Whether every asset is there and every check passed."""
        return all(
            asset.state == "materialized" and all(asset.checks.values()) for asset in self.assets
        ) and bool(self.assets)


def events(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.DagsterEvent]:
    """Yield all events of a run, in order."""
    for entry in instance.all_logs(run_id):
        if entry.dagster_event is not None:
            yield entry.dagster_event


def read_run(instance: dg.DagsterInstance, run_id: str) -> RunReport:
    """Collect what the events of a run say about its assets."""
    assets: dict[str, AssetReport] = {}
    steps: dict[str, list[AssetReport]] = {}
    started: list[AssetReport] = []
    errors = []
    for event in events(instance, run_id):
        kind, data = event.event_type, event.event_specific_data
        key = event.asset_key.to_user_string() if event.asset_key else ""
        mine = steps.setdefault(event.step_key or "", [])
        if kind == dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
            mine.append(assets.setdefault(key, AssetReport(key)))
        elif kind == dg.DagsterEventType.ASSET_MATERIALIZATION:
            assets[key].state = "materialized"
            for name, value in data.materialization.metadata.items():
                prefix = next((prefix for prefix in (JOB, OUTPUT) if name.startswith(prefix)), "")
                target = {JOB: assets[key].job, OUTPUT: assets[key].outputs, "": assets[key].payload}[prefix]
                target[name.removeprefix(prefix)] = value.value
        elif kind == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            assets[data.asset_key.to_user_string()].checks[data.check_name] = data.passed
        elif kind == dg.DagsterEventType.STEP_START:
            started.extend(mine)
        elif kind == dg.DagsterEventType.STEP_SUCCESS:
            for asset in mine:
                asset.seconds = data.duration_ms / 1000
        elif kind == dg.DagsterEventType.STEP_FAILURE:
            for asset in mine:
                asset.state = "failed"
            errors.append(f"{event.step_key}: {failure_text(data)}")
        elif kind == dg.DagsterEventType.RUN_FAILURE and not errors and data.error:
            errors.append(data.error.message.strip())
    never_started = [asset for asset in assets.values() if asset not in started]
    return RunReport(started + never_started, errors)


def failure_text(data: object) -> str:
    """Return the innermost reason of a step's failure."""
    user = getattr(data, "user_failure_data", None)
    if user is not None and user.description:
        return str(user.description).strip()
    error = getattr(data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else "no reason is known"


def words(asset: AssetReport) -> str:
    """Return the numbers that the payload reported, its checks, and what its outputs are called."""
    numbers = ", ".join(
        f"{name} {value}" for name, value in asset.payload.items() if isinstance(value, int | float)
    )
    checks = [
        f"[{'green' if passed else 'red'}]{name} {'passed' if passed else 'failed'}[/]"
        for name, passed in asset.checks.items()
    ]
    outputs = ", ".join(name for name in asset.outputs if "/" not in name)
    return "\n".join(filter(None, [numbers, *checks, f"outputs: {outputs}" if outputs else ""]))


def pulled(report: RunReport) -> list[str]:
    """Return where on this machine those outputs are that came back to it."""
    return [
        str(value)
        for asset in report.assets
        for name, value in asset.outputs.items()
        if name.endswith("/pulled")
    ]


def table(report: RunReport, *, title: str) -> Table:
    """Return the report as a table for a terminal."""
    result = Table(title=title, title_justify="left")
    for column in ("asset", "state", "job", "seconds"):
        result.add_column(column, no_wrap=True)
    result.add_column("what it says")
    for asset in report.assets:
        result.add_row(
            asset.key,
            f"[{'green' if asset.state == 'materialized' else 'red'}]{asset.state}[/]",
            str(asset.job.get("id", "")).partition(":")[0],
            f"{asset.seconds:.1f}" if asset.seconds is not None else "",
            words(asset),
        )
    return result


def main() -> int:
    """Print the newest run's table; the exit status tells whether all of it succeeded."""
    console = Console()
    with dg.DagsterInstance.get() as instance:
        runs = instance.get_runs(limit=1)
        if not runs:
            console.print("there is no run yet")
            return 1
        report = read_run(instance, runs[0].run_id)
    console.print(table(report, title=f"run {runs[0].run_id[:8]}"))
    for error in report.errors:
        console.print(error, style="red", markup=False)
    return 0 if report.succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
