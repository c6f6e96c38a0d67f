"""What goes wrong when environments are made."""

from __future__ import annotations

from collections.abc import Sequence

from dagster_slurm_components.errors import DagsterSlurmError


class EnvironmentFailedError(DagsterSlurmError):
    """An environment can't be made, or is not what it should be.

    Args:
        message: What happened.
        code: A short stable word: ``tampered``, ``missing``, ``disk_full``, ``differs``, ``locked``,
            ``build_failed``, ``activation_failed``, ``not_deployed``, ``failed``.
        detail: What is concerned, one line each: package files, differences.
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
        self.detail = tuple(detail)
        listed = "".join(f"\n  {line}" for line in self.detail)
        super().__init__(message + listed, where=where, hint=hint)
