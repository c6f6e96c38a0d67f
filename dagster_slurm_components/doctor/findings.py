"""What an examination finds."""

from dataclasses import dataclass
from enum import Enum
from functools import partial


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
    """The result of one check, which is a short stable word for programs, such as ``host_key``.

    ``detail`` says what was found, in one sentence; ``advice`` what to do about it, if something has to be done.
    """

    check: str
    verdict: Verdict
    detail: str
    advice: str | None = None

    @property
    def is_failure(self) -> bool:
        """Whether jobs can't run."""
        return self.verdict is Verdict.FAILED


def _finding(verdict: Verdict, check: str, detail: str, advice: str | None = None) -> Finding:
    return Finding(check, verdict, detail, advice)


ok = partial(_finding, Verdict.OK)
note = partial(_finding, Verdict.NOTE)
warning = partial(_finding, Verdict.WARNING)
failed = partial(_finding, Verdict.FAILED)
skipped = partial(_finding, Verdict.SKIPPED)
