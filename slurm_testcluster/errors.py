"""What this package raises."""

from __future__ import annotations


class ClusterError(Exception):
    """The test cluster could not be started, changed or stopped.

    Args:
        message: What happened.
        where: The folder, file or log that it is about.
        hint: What the reader can do about it.
    """

    def __init__(self, message: str, *, where: object = None, hint: str | None = None) -> None:
        text = f"{where}: {message}" if where else message
        super().__init__(f"{text}\n{hint}" if hint else text)


class ClusterUnavailableError(ClusterError):
    """A cluster can't be had on this machine as it is; the hint says what it needs."""
