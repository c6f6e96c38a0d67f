"""A program of the host that somebody talks to: its streams as frames, on a terminal of its own if wanted.

From the client ``{}`` with a blob is input, ``{"end": true}`` its end, ``{"size": [rows, columns]}`` the terminal's,
and ``{"stop": true}`` ends the program.
To the client ``{"to": "out"}`` or ``"err"`` with a blob is output, and ``{"exit": code}`` comes last; minus a signal's
number where one ended it. The program ends with its connection: nothing of it stays behind.
"""

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import termios
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from dagster_slurm_components.hosts.satellite.commands import ASIDE, locate, submission_environment
from dagster_slurm_components.hosts.satellite.protocol import Result, encode_frame, native

Hear = Callable[[], Optional[Tuple[Result, bytes]]]
Tell = Callable[[bytes], None]

_PIECE = 64 * 1024
_GRACE = 5.0
"""Seconds that a program has to end by itself once nobody listens any more."""


class Program:
    """A program in the environment that a job would have, and ``env``; on a terminal if that has a ``size``.

    Raises Failure and OSError where it can't be started.
    """

    def __init__(self, argv: Sequence[str], env: Dict[str, str], size: Optional[Sequence[int]]) -> None:
        words, environment = locate(argv, submission_environment())
        environment.update({native(name): native(value) for name, value in env.items()})
        words = [b"/bin/sh", b"-c", ASIDE + b'; exec "$@"', b"sh", *words]
        how: Dict[str, Any] = {"env": environment, "cwd": "/", "start_new_session": True}
        self._process: Any
        self._outputs: List[Tuple[str, int]]
        if size is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, **how)
            self._input = os.dup(self._process.stdin.fileno())
            self._process.stdin.close()
            out, err = self._process.stdout, self._process.stderr
            self._outputs = [("out", out.fileno()), ("err", err.fileno())]
        else:
            self._input, theirs = os.openpty()
            try:
                _resize(theirs, size)
                how.update(stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=_take_terminal)
                self._process = subprocess.Popen(words, **how)
            finally:
                os.close(theirs)
            self._outputs = [("out", self._input)]

    def converse(self, hear: Hear, tell: Tell) -> None:
        """Hand on what comes and goes until the client has gone, and end the program then."""
        threading.Thread(target=self._follow, args=(tell,), daemon=True).start()
        try:
            frame = hear()
            while frame is not None:
                self._take(*frame)
                frame = hear()
        finally:
            self._end()

    def _take(self, header: Result, data: bytes) -> None:
        if "size" in header:
            _resize(self._input, header["size"])
        with contextlib.suppress(OSError):  # it reads no more
            while data:
                data = data[os.write(self._input, data) :]
        if "stop" in header:
            self._end()
        if header.get("end"):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._input)
            os.close(nothing)

    def _follow(self, tell: Tell) -> None:
        readers = [
            threading.Thread(target=_copy, args=(descriptor, name, tell), daemon=True)
            for name, descriptor in self._outputs
        ]
        for reader in readers:
            reader.start()
        code = self._process.wait()
        for reader in readers:
            reader.join(_GRACE)  # what it started may hold the streams open
        tell(encode_frame({"exit": code}))

    def _end(self) -> None:
        """End the program, if it has not ended, and what it started."""
        for number in (signal.SIGHUP, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)


def _take_terminal() -> None:
    """Make the terminal the new session's own, so that Ctrl-C reaches what runs in it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _resize(terminal: int, size: Sequence[int]) -> None:
    rows, columns = size
    with contextlib.suppress(OSError, struct.error):  # no terminal, or no size
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _copy(descriptor: int, name: str, tell: Tell) -> None:
    with contextlib.suppress(OSError):  # EIO: a terminal whose program has gone
        piece = os.read(descriptor, _PIECE)
        while piece:
            tell(encode_frame({"to": name}, piece))
            piece = os.read(descriptor, _PIECE)
