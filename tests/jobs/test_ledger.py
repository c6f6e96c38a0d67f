"""A ledger as it is read from afar."""

import pytest

from dagster_slurm_components.jobs.lease import LedgerRecord, parse_ledger

WHOLE = b"token=ab\nintent=5\njob_id=123\nsubmitted=6\n"


def test_it_names_the_job() -> None:
    assert parse_ledger(WHOLE) == LedgerRecord("ab", "123", 6.0)


@pytest.mark.parametrize("cut", range(len(WHOLE)))
def test_a_torn_line_says_nothing(cut: int) -> None:
    """`job_id=12` of `job_id=123` would be another job, and that one would be cancelled."""
    found = parse_ledger(WHOLE[:cut])
    assert found.job_id == ("123" if b"123\n" in WHOLE[:cut] else None)
    assert found.token == ("ab" if b"\n" in WHOLE[:cut] else "")


def test_one_that_can_not_be_read_names_no_job_and_hides_no_other() -> None:
    assert parse_ledger(b"token=ab\njob_id=12\nintent=soon\n") == LedgerRecord("", None, None)
