"""A person at a terminal: a program on a pty of its own, what is typed there, and what is seen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType

PATIENCE = 120.0


class Terminal:
    """A program on a terminal."""

    def __init__(self, argv: Sequence[str], *, rows: int = 24, columns: int = 80) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(rows, columns)

        def take() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "vt220"},
            preexec_fn=take,  # noqa: PLW1509
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self._ours, 65536):
                self.seen += data.decode("utf-8", "replace")

    def until(self, text: str, seconds: float = PATIENCE) -> str:
        """Read until a text is there; return what came after the last one, with it."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            self.read()
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen!r}"
            assert self.process.poll() is None or text in self.seen, f"it ended: {self.seen!r}"
            time.sleep(0.02)
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def ended(self) -> int:
        """Wait for the program's end; return its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < deadline, f"it does not end: {self.seen!r}"
            time.sleep(0.02)
        self.read()
        return self.process.returncode

    def kill(self) -> None:
        """Kill it, as a machine that loses its power would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        os.close(self._ours)
