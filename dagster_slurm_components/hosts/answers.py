"""The answers to what a login asks: remembered in memory, from the user's own command, or asked from a person."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dagster_slurm_components.errors import LOGIN, HostRefusedError, LoginRequiredError

INTERACTIVE = frozenset({"password", "otp"})
"""The steps of a login that somebody has to answer."""

_COMMAND_TIMEOUT = 60.0
_CODE_LIVES, _CODE_PAUSE = 60.0, 2.0
"""Seconds after which the next time-based password has surely come (RFC 6238 proposes 30), and between two looks."""


@dataclass(frozen=True)
class Prompt:
    """A question of the login. It comes from the SSH protocol itself, never from text that the host prints.

    ``host`` is who asks, ``user@hostname:port``; ``kind`` is ``password`` or ``otp``, as the profile's ``login`` says;
    ``text`` is the question in the host's words, and ``instructions`` what it says beside it.
    """

    host: str
    kind: str
    text: str
    instructions: str = ""


class Answers:
    """What is known of the secrets of one host and its jump hosts, if need be by the user's own ``command``.

    Secrets stay in this process's memory. A password is kept for the next connection; a one-time password is not. After
    a wrong answer nothing is answered by itself until a person has logged in: repeated wrong logins lock accounts.
    """

    def __init__(self, command: Sequence[str] = (), sleep: Callable[[float], None] = time.sleep) -> None:
        self._command = list(command)
        self._sleep = sleep
        self._used: dict[str, str] = {}
        self._passwords: dict[str, str] = {}
        self._person: Callable[[Prompt], str] | None = None
        self._wrong = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def asking(self, person: Callable[[Prompt], str]) -> Iterator[None]:
        """Ask a person meanwhile."""
        with self._lock:
            self._person = person
            try:
                yield
            finally:
                self._person = None

    @property
    def attended(self) -> bool:
        """Whether a person is there to answer."""
        return self._person is not None

    def check(self, host: str, steps: Sequence[str]) -> None:
        """Raise LoginRequiredError when a login would ask what nobody can answer: then it is not even tried."""
        asked = [step for step in steps if step in INTERACTIVE]
        if not asked or self.attended:
            return
        if self._wrong:
            raise required(host, "the last answer was not accepted")
        if not self._command and ("otp" in asked or host not in self._passwords):
            raise required(host, f"the login asks for {' and '.join(asked)}")

    def answer(self, prompt: Prompt) -> str:
        """Return the answer; raises LoginRequiredError where there is none, HostRefusedError if the command failed."""
        person = self._person
        if person is not None:
            found = person(prompt)
        elif prompt.kind == "password" and prompt.host in self._passwords:
            return self._passwords[prompt.host]
        elif self._command:
            found = self._unused(prompt)
        else:
            raise required(prompt.host, f"the login asks: {prompt.text.strip()}")
        if prompt.kind == "password":
            self._passwords[prompt.host] = found
        return found

    def accepted(self) -> None:
        """The answers were right."""
        self._wrong = False

    def refused(self) -> None:
        """The answers were wrong: forget them."""
        self._wrong = True
        self._passwords.clear()

    def _unused(self, prompt: Prompt) -> str:
        """Return what the command answers; a time-based password that was used already is waited out.

        A host refuses it a second time, and some count that as a wrong answer.
        """
        found, left = self._run(prompt), _CODE_LIVES
        while prompt.kind == "otp" and found == self._used.get(prompt.host) and left > 0:
            self._sleep(_CODE_PAUSE)
            found, left = self._run(prompt), left - _CODE_PAUSE
        if prompt.kind == "otp":
            self._used[prompt.host] = found
        return found

    def _run(self, prompt: Prompt) -> str:
        asked = {"DG_SLURM_KIND": prompt.kind, "DG_SLURM_PROMPT": prompt.text, "DG_SLURM_HOST": prompt.host}
        try:
            done = subprocess.run(
                self._command,
                env={**os.environ, **asked},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_COMMAND_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            # Not the error's own text of a timeout: it would hold what the command printed.
            reason = error.strerror if isinstance(error, OSError) else f"no answer in {_COMMAND_TIMEOUT:g} s"
            why = f"secret_command {self._command[0]!r}: {reason}"
            raise HostRefusedError(why, where=prompt.host) from None
        answered = bool(done.stdout.strip())
        if done.returncode != 0 or not answered:
            why = (
                f"secret_command {self._command[0]!r} ended with status {done.returncode} and "
                f"{'an' if answered else 'no'} answer: {done.stderr.strip()[:500]}"
            )
            raise HostRefusedError(why, where=prompt.host)
        return done.stdout.splitlines()[0]


def required(host: str, why: str) -> LoginRequiredError:
    """Return the error that asks for a person."""
    return LoginRequiredError(why, where=host, hint=f"Log in once with: {LOGIN}")
