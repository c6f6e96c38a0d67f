"""How the storm's webserver ends a run: as Dagster's default launcher does, whose code server made the worker.

That marks the run as CANCELING and interrupts the worker; here the worker's process stands in the run's tags, because
workers are forked from a process that has imported Dagster.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.launcher import LaunchRunContext, RunLauncher  # what `dagster.yaml` names (1.13)
from dagster._serdes import ConfigurableClass, ConfigurableClassData

PID = "storm/pid"


class StormLauncher(RunLauncher, ConfigurableClass):
    """Launches nothing; ends what the storm began."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Whence Dagster knows it."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, object]:
        """It takes no configuration."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> StormLauncher:
        """Make one."""
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Refuse."""
        raise NotImplementedError("the storm starts its runs itself")

    def terminate(self, run_id: str) -> bool:
        """Mark a run as being cancelled, and interrupt its worker."""
        run: dg.DagsterRun | None = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        os.kill(
            int(run.tags[PID]), signal.SIGINT
        )  # gone: an error, which the API tells, as for a code server
        return True
