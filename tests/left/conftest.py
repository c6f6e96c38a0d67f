"""A project whose scripts leave their jobs, and the sensor that reports what comes of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from project_fixture import Project
from waiting import PATIENCE, eventually

import slurm_testcluster as slurm
from dagster_slurm_components import slurm_jobs_sensor
from dagster_slurm_components.jobs.lease import LeaseStore
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.spec.profiles import load_profile

SOON = PATIENCE
PAYLOAD = """
import os, sys, time
from pathlib import Path
from dagster_pipes import open_dagster_pipes

gates = Path(os.environ["GATES"])
with open_dagster_pipes() as pipes:
    name = sys.argv[1]
    if "DAGSTER_SLURM_PARTITION_KEY" in os.environ:
        name += "-" + os.environ["DAGSTER_SLURM_PARTITION_KEY"]
    with (gates / "trace").open("a") as trace:
        trace.write(name + "\\n")
    while not (gates / name).exists() and not (gates / "all").exists():
        time.sleep(0.05)
    for key in sys.argv[2:]:
        pipes.report_asset_materialization(asset_key=key, metadata={"rows": 7}, data_version="v1")
        pipes.report_asset_check(asset_key=key, check_name="ok", passed=True)
    if (gates / ("fail-" + name)).exists():
        raise ValueError("no luck today")
"""


@dataclass
class Left:
    """A project, its instance, and the sensor.

    Attributes:
        notes: What the sensor told a person.
    """

    project: Project
    instance: dg.DagsterInstance
    profile: str
    cluster: slurm.Cluster | None
    notes: list[str] = field(default_factory=list)
    cursor: str | None = None

    def __post_init__(self) -> None:
        self.gates.mkdir()
        self.project.write("payload.py", PAYLOAD)
        self._sensor = slurm_jobs_sensor(project=self.project.root, notify=self.notes.append)

    @property
    def gates(self) -> Path:
        """Where payloads look for their gates."""
        return self.project.root / "gates"

    def scripts(self, *scripts: str) -> None:
        """Write the component: each script a YAML flow mapping, on top of what all have."""
        listed = "\n".join(f"  - {script}" for script in scripts)
        self.project.scripts(
            f"defaults: {{payload: payload.py, leave: true, env: {{GATES: '{self.gates}'}}}}\nscripts:\n{listed}\n"
        )

    def run(self, *select: str, **options: Any) -> dg.ExecuteInProcessResult:
        """Materialize assets; with options of ``execute_in_process``."""
        return self.project.run(self.profile, instance=self.instance, select=select, **options)

    def open(self, *names: str) -> None:
        """Let payloads end; without a name all. Whether one fails is settled before it may go on."""
        for name in sorted(names or ("all",), key=lambda each: not each.startswith("fail-")):
            (self.gates / name).touch()

    def begun(self) -> list[str]:
        """Return the names of the payloads that have begun, one for each time."""
        file = self.gates / "trace"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def store(self) -> LeaseStore:
        return target(load_profile(self.profile, start=self.project.root)).leases

    def states(self) -> list[str]:
        """Return the states of the open leases."""
        return sorted(attempt.lease.state for attempt in self.store.open()[0])

    def tick(self) -> str:
        """Evaluate the sensor once, with the cursor of the time before; return what it said."""
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            said = self._sensor(context)
            self.cursor = context.cursor
        assert isinstance(said, dg.SkipReason)
        return str(said.skip_message)

    def reported(self) -> None:
        """Evaluate the sensor until no left job is open."""
        deadline = time.monotonic() + SOON
        while self.states():
            assert time.monotonic() < deadline, self.states()
            self.tick()
            time.sleep(0.2)

    def made(self, key: str) -> list[dg.AssetMaterialization]:
        """Return the materializations of an asset, the oldest first."""
        records = self.instance.fetch_materializations(
            dg.AssetKey.from_user_string(key), limit=500, ascending=True
        ).records
        return [each.asset_materialization for each in records if each.asset_materialization]

    def observed(self, key: str) -> list[dg.AssetObservation]:
        """Return the observations of an asset, the oldest first."""
        records = self.instance.fetch_observations(
            dg.AssetKey.from_user_string(key), limit=500, ascending=True
        ).records
        return [each.asset_observation for each in records if each.asset_observation]

    def checks(self, key: str, name: str = "ok") -> list[dg.AssetCheckEvaluation]:
        """Return the evaluations of a check, the newest first."""
        check = dg.AssetCheckKey(dg.AssetKey.from_user_string(key), name)
        history = self.instance.event_log_storage.get_asset_check_execution_history(check, limit=500)
        return [each.evaluation for each in history if isinstance(each.evaluation, dg.AssetCheckEvaluation)]

    def runs(self, status: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        """Return the runs of a status."""
        return list(self.instance.get_runs(dg.RunsFilter(statuses=[status])))


@pytest.fixture(params=["local", pytest.param("staging", marks=[pytest.mark.slurm, pytest.mark.slow])])
def left(request: pytest.FixtureRequest, project: Project, instance: dg.DagsterInstance) -> Iterator[Left]:
    cluster: slurm.Cluster | None = None
    if request.param == "staging":
        cluster = request.getfixturevalue("cluster")
        project.staging(cluster)
    made = Left(project, instance, request.param, cluster)
    yield made
    made.open()
    eventually(lambda: not _living(made), "all jobs end", SOON)


def _living(left: Left) -> bool:
    from dagster_slurm_components.jobs.records import observed, run_directories  # noqa: PLC0415

    place = target(load_profile(left.profile, start=left.project.root))
    return any(info and info.alive for _, info in observed(place, run_directories(place)))
