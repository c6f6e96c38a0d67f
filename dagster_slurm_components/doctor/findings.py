"""What an examination finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(str, Enum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    """Nothing is wrong; a user should know it."""
    WARNING = "warning"
    """Jobs will run, but something is worse than it should be."""
    FAILED = "failed"
    """Jobs will not run."""
    SKIPPED = "skipped"
    """An earlier failure left nothing to check."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: A short stable word for programs, such as ``host_key``.
        verdict: How it ended.
        detail: What was found, in one sentence.
        advice: What to do about it; none when nothing has to be done.
    """

    check: str
    verdict: Verdict
    detail: str
    advice: str | None = None

    @property
    def is_failure(self) -> bool:
        """Whether jobs can't run."""
        return self.verdict is Verdict.FAILED


def ok(check: str, detail: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check, Verdict.OK, detail)


def note(check: str, detail: str, advice: str | None = None) -> Finding:
    """Return a finding to know of."""
    return Finding(check, Verdict.NOTE, detail, advice)


def warning(check: str, detail: str, advice: str) -> Finding:
    """Return a finding that is not as it should be."""
    return Finding(check, Verdict.WARNING, detail, advice)


def failed(check: str, detail: str, advice: str) -> Finding:
    """Return a finding that keeps jobs from running."""
    return Finding(check, Verdict.FAILED, detail, advice)


def skipped(check: str, why: str) -> Finding:
    """Return a finding that nothing could be checked."""
    return Finding(check, Verdict.SKIPPED, why)
