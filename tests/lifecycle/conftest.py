"""One `dg dev` for each module: it takes ten seconds to start."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lifecycle.dev import Dev
from project_fixture import Project

from dagster_slurm_components import cluster as slurm

_numbers = itertools.count()

# Each of these starts a `dg dev` and strikes its processes one after another, which takes ten minutes and more:
# `DAGSTER_SLURM_LONG_TESTS=1 make test ARGS=tests/lifecycle` runs them.
LONG = ["test_processes.py", "test_sensor.py", "test_terminal.py"]
collect_ignore = [] if os.environ.get("DAGSTER_SLURM_LONG_TESTS") else LONG

WAITS = """
    import os, sys, time
    from pathlib import Path
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        # The run directory carries the run that submitted; a retry's context may carry another.
        gate = Path(os.environ["GATES"], Path(os.environ["DAGSTER_SLURM_RUN_DIR"]).parts[-3])
        print("the payload has begun", flush=True)
        pipes.log.info("waiting at the gate")
        while not gate.exists():
            time.sleep(0.05)
        print("the gate is open", flush=True)
        pipes.report_asset_materialization(metadata={"answer": 42, "job_name": os.environ["SLURM_JOB_NAME"]})
"""

SENSOR = """
    from pathlib import Path
    from dagster_slurm_components import slurm_jobs_sensor

    healer = slurm_jobs_sensor(project=Path(__file__).parent, minimum_interval_seconds=5)
"""


@pytest.fixture(scope="module")
def dev(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, cluster: slurm.Cluster
) -> Iterator[Dev]:
    """A `dg dev` whose scripts run on the cluster; modules that say ``WITH_SENSOR = True`` get the sensor too."""
    package = f"lifecycle_{os.getpid()}_{next(_numbers)}"
    root = tmp_path_factory.mktemp("lifecycle") / "my project"
    folder = root / "src" / package
    (folder / "defs" / "work").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "defs" / "__init__.py").touch()
    (folder / "definitions.py").write_text(
        "from pathlib import Path\n"
        "from dagster import definitions, load_from_defs_folder\n\n\n"
        "@definitions\n"
        "def defs():\n"
        "    return load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
    )
    (root / "pyproject.toml").write_text(
        f'[project]\nname = "{package}"\nversion = "0"\n\n[tool.dg]\ndirectory_type = "project"\n\n'
        f'[tool.dg.project]\nroot_module = "{package}"\n'
        f'code_location_target_module = "{package}.definitions"\n'
    )
    project = Project(root, package)
    project.staging(cluster)
    project.write("waits.py", WAITS)
    project.scripts(
        """
        scripts:
          - payload: waits.py
            env: {GATES: "{{ env('GATES') }}"}
            resources: {time: "00:10:00"}
            assets: [{key: waits}]
        """
    )
    if getattr(request.module, "WITH_SENSOR", False):
        project.write("../healer.py", SENSOR)  # beside the folder, whose Python files a component owns
    made = Dev(project, "staging")
    try:
        made.start()
        yield made
    finally:
        for run in (Path(made.project.root) / "gates").glob("*"):
            run.touch()
        made.stop()
