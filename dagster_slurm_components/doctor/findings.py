"""What an examination finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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


def _finding(verdict: Verdict, check: str, detail: str, advice: str | None = None) -> Finding:
    return Finding(check, verdict, detail, advice)


ok = partial(_finding, Verdict.OK)
note = partial(_finding, Verdict.NOTE)
warning = partial(_finding, Verdict.WARNING)
failed = partial(_finding, Verdict.FAILED)
skipped = partial(_finding, Verdict.SKIPPED)


def with_skipped(findings: Iterable[Finding], checks: Sequence[str]) -> Iterator[Finding]:
    """Yield findings, and after a failure that ended them early the checks that were not made."""
    made, failure = set(), None
    for finding in findings:
        yield finding
        made.add(finding.check)
        failure = finding.check if finding.is_failure else failure
    for check in checks:
        if check not in made:
            yield skipped(check, f"{failure} failed")
