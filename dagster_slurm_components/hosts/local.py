"""This machine as a host: the satellite's own functions, called in-process."""

import sys
from collections.abc import Mapping
from typing import Any

from dagster_slurm_components.hosts import bootstrap, wire
from dagster_slurm_components.hosts.base import Pipe, Reply
from dagster_slurm_components.hosts.bootstrap import SubprocessPipe
from dagster_slurm_components.hosts.satellite.operations import handle
from dagster_slurm_components.hosts.satellite.protocol import Failure

_START_TIMEOUT = 60.0
_GRACE = 15.0
"""Seconds for a satellite that ends a program."""


class InProcessHost:
    """This machine."""

    name = "local"

    def call(self, op: str, params: Mapping[str, Any], blob: bytes = b"", *, timeout: float = 60.0) -> Reply:
        """Do one operation; ``timeout`` is unused, as only the operation's own timeouts can end it."""
        try:
            return Reply(*handle(op, dict(params), blob))
        except Failure as failure:
            told = {"error": failure.message, "code": failure.code}
            raise wire.error_of(told, self.name) from failure

    def open(self) -> Pipe:
        """Start a satellite in a process of its own; see ``Host``."""
        pipe = SubprocessPipe([sys.executable, *bootstrap.arguments()], self.name, grace=_GRACE)
        bootstrap.boot(pipe, self.name, _START_TIMEOUT)
        return pipe

    def close(self) -> None:
        """Do nothing: there is no connection."""
