"""A satellite in a process of its own on this machine; benchmarks use it, too."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping

from dagster_slurm_components.hosts import bootstrap
from dagster_slurm_components.hosts.bootstrap import SubprocessPipe


class SubprocessDialer:
    """Runs the satellite in ``python``, in another environment if one is given."""

    def __init__(
        self, python: str = sys.executable, *, env: Mapping[str, str] | None = None, timeout: float = 30.0
    ) -> None:
        self.name = f"subprocess of {python}"
        self._python = python
        self._env = env
        self._timeout = timeout

    def dial(self) -> SubprocessPipe:
        """Start the subprocess."""
        pipe = SubprocessPipe(self.arguments(), self.name)
        bootstrap.boot(pipe, self.name, self._timeout)
        return pipe

    def arguments(self) -> list[str]:
        """Return the command line."""
        command = shlex.split(bootstrap.shell_command(shlex.quote(self._python)))
        if self._env is None:
            return command
        return ["env", "-i", *(f"{name}={value}" for name, value in self._env.items()), *command]

    def open(self) -> SubprocessPipe:
        """Start another one; see ``Dialer``."""
        return self.dial()
