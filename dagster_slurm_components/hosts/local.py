"""This machine as a host: the satellite's own functions, called in-process."""

from collections.abc import Mapping
from typing import Any

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.satellite.operations import handle
from dagster_slurm_components.hosts.satellite.protocol import Failure


class InProcessHost:
    """This machine."""

    name = "local"

    def call(self, op: str, params: Mapping[str, Any], blob: bytes = b"", *, timeout: float = 60.0) -> Reply:
        """Do one operation; ``timeout`` is unused, as only the operation's own timeouts can end it."""
        try:
            return Reply(*handle(op, dict(params), blob))
        except Failure as failure:
            raise SatelliteError(failure.message, code=failure.code, where=self.name) from failure

    def close(self) -> None:
        """Do nothing: there is no connection."""
