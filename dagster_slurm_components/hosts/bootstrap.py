"""Starting the satellite in a Python at the other end of a pipe: a command's standard streams, here or over ssh."""

import contextlib
import io
import os
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from typing import IO, NamedTuple, cast

from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError
from dagster_slurm_components.hosts.base import Pipe
from dagster_slurm_components.hosts.program import BOOTSTRAP, program, shipped
from dagster_slurm_components.hosts.satellite.protocol import READY

PYTHONS = ("python3", "/usr/libexec/platform-python")
"""Tried in this order; the second is what RHEL 8 has when no python3 is installed."""

_NOISE = 64 * 1024
"""Bytes of banners that a login shell may print before the satellite speaks."""

_SETUP_SECONDS = 45
"""Seconds for the setup of a profile's host; what hangs would stay on the login node, and more with each attempt."""

_PIPE = 256 * 1024
"""Bytes that a pipe holds."""

_GRACE = 2.0
"""Seconds that a process has to end by itself."""

_PASSING = re.compile(
    "Resource temporarily unavailable|Cannot allocate memory|can't start new thread|Stale file handle|"
    "Input/output error|nologin|going down|not permitted to log in yet",
    re.IGNORECASE,
)
"""What an overloaded or restarting machine says: waiting may heal it."""


_OF_SETUP = "dagster-slurm: the host's setup "
"""How ``start.sh`` begins to say what became of a setup."""


class Ending(NamedTuple):
    """How a process at the other end of a pipe ended, as far as known."""

    returncode: int | None
    stderr: str


class SubprocessPipe:
    """A pipe to a command on this machine; raises HostRefusedError when it can't be run, ``where`` it is for.

    Closed, the command has ``grace`` seconds to end by itself.
    """

    def __init__(self, argv: Sequence[str], where: str, *, grace: float = _GRACE) -> None:
        self.where = where
        self._grace = grace
        try:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pipesize=_PIPE,  # with the usual 64 KiB, downloads over ssh came at half the speed
                start_new_session=True,
            )
        except OSError as error:
            raise HostRefusedError(f"can't run {argv[0]}: {error}", where=where) from error
        streams = (self.process.stdin, self.process.stdout, self.process.stderr)
        self._stdin, self._stdout, self._stderr = cast("list[IO[bytes]]", streams)
        # Reads into one buffer, and keeps nothing back. Put together from what the pipe held each time, large files
        # took 6 % more of the two processors that ssh needs, too.
        self._large = io.BufferedReader(cast("io.FileIO", self._stdout), 1)
        self._closing = threading.Lock()

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes, none at the end; more than the pipe can hold are waited for."""
        return self._stdout.read(size) if size <= _PIPE else self._large.read(size)

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
                self.process.wait(self._grace)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def ending(self) -> Ending:
        """Return how the process ended."""
        self.close()
        os.set_blocking(self._stderr.fileno(), False)  # a child of it may hold the pipe open
        stderr = self._stderr.read() or b""
        return Ending(self.process.returncode, stderr.decode("utf-8", "replace"))


class NoPythonError(HostRefusedError):
    """This Python is missing, or too old: another one may do."""


def source() -> bytes:
    """Return the satellite's program."""
    return program("dagster_slurm_components.hosts.satellite.operations")


def shell_command(python: str) -> str:
    """Return the command that waits for the satellite's program on its standard input; each login shell reads it alike.

    Isolated (``-I``) and without ``site`` (``-S``): no user's modules, variables or folders decide what it imports.
    """
    return f"{python} -I -S -c '{BOOTSTRAP}' {len(source())}"


def arguments() -> list[str]:
    """Return the same command's words, but for the Python."""
    return ["-I", "-S", "-c", BOOTSTRAP, str(len(source()))]


def prepared_command(python: str, setup: Sequence[str]) -> tuple[str, bytes]:
    """Return the same for a user's own Python, after a user's own commands, and what goes before the program then.

    What the user wrote is part of neither the login shell's command nor of a shell's text of ours.
    """
    words = f"'{BOOTSTRAP}' {len(source())} {len(setup)} {_SETUP_SECONDS}"
    before = shipped("hosts/start.sh") + "".join(f"{text}\0" for text in (*setup, python))
    return f"bash -s {words}", before.encode("utf-8", "surrogateescape")


def boot(pipe: SubprocessPipe, name: str, timeout: float, before: bytes = b"") -> None:
    """Send the satellite and wait until its frames begin, ``timeout`` seconds at most.

    The pipe leads to a process that runs ``shell_command``, or a ``prepared_command`` with what goes ``before``, and is
    closed when this raises: NoPythonError when there is no such Python, or it is too old; HostRefusedError when
    something else answered; HostUnreachableError when nothing did.
    """
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        pipe.close()

    watchdog = threading.Timer(timeout, expire)
    watchdog.daemon = True
    watchdog.start()
    # Beside the listening: who says no need not read, and what is sent may be more than a pipe holds.
    sender = threading.Thread(
        target=_send, args=(pipe, before + source()), name=f"program for {name}", daemon=True
    )
    sender.start()
    noise = _listen(pipe)
    watchdog.cancel()
    if noise.endswith(READY):
        sender.join()
        return
    ending = pipe.ending()
    pipe.close()
    raise _reason(noise, ending, name, timeout if expired.is_set() else None)


def _send(pipe: Pipe, data: bytes) -> None:
    with contextlib.suppress(OSError, EOFError):  # it has ended already: what it said tells why
        pipe.write(data)


def _listen(pipe: Pipe) -> bytes:
    noise = b""
    with contextlib.suppress(OSError, EOFError):
        # Nothing follows the marker before the satellite is asked something.
        while not noise.endswith(READY) and len(noise) < _NOISE and (piece := pipe.read(4096)):
            noise += piece
    return noise


def _reason(noise: bytes, ending: Ending, name: str, timeout: float | None) -> Exception:
    printed, setup, rest = (noise.decode("utf-8", "replace") + ending.stderr).partition(_OF_SETUP)
    said = "\n".join(printed.strip().splitlines()[:10])[:2000]
    if len(noise) + len(ending.stderr) >= _NOISE:
        why = f"the login printed more than {_NOISE // 1024} KiB before the satellite could start, beginning with:"
        hint = "Let .bashrc and the like print in a terminal alone: `[[ $- == *i* ]] || return` at their top."
        return HostRefusedError(f"{why}\n{said}", where=name, hint=hint)
    if setup:
        why = f"the `setup` of the profile's host {rest[:500].strip()}\nThe host printed:\n{said}"
        kind = HostUnreachableError if rest.startswith("did not end") else HostRefusedError
        return kind(why, where=name, hint="Try it by hand, in: ssh HOST bash")
    if timeout is not None or _PASSING.search(said):
        late = (
            "the host can't start the satellite now"
            if timeout is None
            else f"the satellite did not start within {timeout:g} s"
        )
        return HostUnreachableError(f"{late}; the host printed:\n{said}", where=name)
    if ending.returncode in (126, 127) or "needs Python 3.6" in said:
        return NoPythonError(said or "no python3", where=name)
    if ending.returncode is None and not said:
        return HostUnreachableError("the connection was lost while the satellite started", where=name)
    return HostRefusedError(
        f"the satellite did not start (exit status {ending.returncode}); the host printed:\n{said}",
        where=name,
        hint="The login must run commands: check by hand that 'ssh HOST python3 --version' works.",
    )
