"""The satellite in a Python subprocess on this machine, over pipes: the whole protocol without a network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from dagster_slurm_components.errors import HostRefusedError
from dagster_slurm_components.hosts import bootstrap
from dagster_slurm_components.hosts.channel import Pipe

_GRACE = 2.0
"""Seconds that the process has to end by itself."""


class SubprocessPipe:
    """A pipe to a subprocess."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("all three standard streams must be pipes")
        self.process = process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._closing = threading.Lock()

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes; none at the end."""
        return self._stdout.read(size)

    def write(self, data: bytes) -> None:
        """Write all of it."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._stdin.write(view) :]
        except ValueError as error:
            raise BrokenPipeError("the pipe is closed") from error

    def close(self) -> None:
        """Close the process's input and wait until it has ended, on that or by force."""
        with self._closing:
            self._stdin.close()
            try:
                self.process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def ending(self) -> bootstrap.Ending:
        """Return how the process ended."""
        self.close()
        os.set_blocking(self._stderr.fileno(), False)  # a child of it may hold the pipe open
        stderr = self._stderr.read() or b""
        return bootstrap.Ending(self.process.returncode, stderr.decode("utf-8", "replace"))


class SubprocessDialer:
    """Runs the satellite in ``python`` on this machine."""

    def __init__(
        self, python: str = sys.executable, *, env: Mapping[str, str] | None = None, timeout: float = 30.0
    ) -> None:
        self.name = f"subprocess of {python}"
        self._python = python
        self._env = env
        self._timeout = timeout

    def dial(self) -> Pipe:
        """Start the subprocess."""
        pipe = SubprocessPipe(start(self.arguments(), self.name, self._env))
        bootstrap.boot(pipe, self.name, self._timeout)
        return pipe

    def arguments(self) -> list[str]:
        """Return the command line."""
        return bootstrap.arguments(self._python)

    def extend(self, pipe: Pipe) -> Pipe | None:
        """Start another one; see ``Dialer``."""
        return self.dial()


def start(argv: Sequence[str], name: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a command with pipes for its standard streams.

    Raises:
        HostRefusedError: It can't be run; ``name`` is where.
    """
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            bufsize=0,
            pipesize=256 * 1024,
            start_new_session=True,
        )
    except OSError as error:
        raise HostRefusedError(f"can't run {argv[0]}: {error}", where=name) from error
