"""The errors this package raises: what happened, where, and what to do about it."""

import copy
import re
from collections.abc import Sequence

_CONTROL = re.compile(
    r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)

LOGIN = "dg-slurm login PROFILE"
"""What to type where a host asks for a login; whoever knows the profile names it, by ``HostError.of_profile``."""


def printable(text: str, *, colours: bool = False) -> str:
    r"""Return text without what moves the cursor or paints on a terminal: much of it comes from other machines.

    ``colours`` stay if they are wanted, and the carriage returns of progress bars.

    >>> printable("a \x1b[31mred\x1b[0m line\r\n")
    'a red line\n'
    """
    return _CONTROL.sub(lambda found: found[0] if colours and found[0][-1] in "m\r" else "", text)


class DagsterSlurmError(Exception):
    """Base of all errors of this package.

    Args:
        message: What happened, in one sentence or two.
        where: The place: ``file:line``, a host name, a job id or a run directory.
        hint: What the reader can do about it.
    """

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        message = printable(message)
        self.message = message
        self.where = where
        self.hint = hint
        super().__init__(message)

    def __str__(self) -> str:
        """Render as ``where: message. hint``, leaving out what is not known."""
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n{self.hint}" if self.hint else text


class HostError(DagsterSlurmError):
    """Something between us and a host went wrong."""

    def of_profile(self, name: str) -> "HostError":
        """Return the same, where what to type names this profile."""
        told = copy.copy(self)
        told.hint = self.hint and self.hint.replace(LOGIN, f"dg-slurm login {name}")
        return told


class HostUnreachableError(HostError):
    """The host can't be reached now, or the connection was lost: waiting may heal it, nothing is decided."""


class LoginRequiredError(HostUnreachableError):
    """The host asks for something that only a person can answer; after ``dg-slurm login PROFILE`` all goes on."""


class UnknownNameError(HostUnreachableError):
    """No machine is known by the host's name now: of a host that was reached before an outage, else a mistake."""


class HostRefusedError(HostError):
    """The host, or our check of it, said no (host key, login, satellite's python): waiting alone won't heal it."""


class ParkedTooLongError(HostError):
    """A host was waited for as long as the profile's ``park_timeout`` allows."""


class SatelliteError(HostError):
    """The satellite received a call and could not do it.

    Args:
        message: What the satellite said.
        code: A short stable word for programs, such as ``no_such_program`` or ``disk_full``.
        where: The host.
        hint: What the reader can do about it.
    """

    def __init__(
        self, message: str, *, code: str = "failed", where: str | None = None, hint: str | None = None
    ) -> None:
        self.code = code
        super().__init__(message, where=where, hint=hint)


class ProgramError(DagsterSlurmError):
    """A program of ours on a host could not do what it was to do.

    Args:
        message: What happened.
        code: A short stable word: ``tampered``, ``missing``, ``disk_full``, ``locked``, ``failed``.
        detail: What is concerned, one line each.
        where: The host or the file.
        hint: What to do.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "failed",
        detail: Sequence[str] = (),
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.code = code
        self.text = message
        self.detail = tuple(detail)
        listed = "".join(f"\n  {line}" for line in self.detail)
        super().__init__(message + listed, where=where, hint=hint)


class EnvironmentFailedError(ProgramError):
    """An environment can't be made, or is not what it should be.

    Its codes are, too, ``differs``, ``build_failed``, ``activation_failed`` and ``not_deployed``.
    """


class InputFailedError(ProgramError):
    """An input can't be brought to where its job runs."""
