"""The page of the fault matrix names tests that there are, and leaves no row out."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "explanation" / "faults.md"


def test_every_row_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| F(\d\d) \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 54))
    for number, row in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
        assert any(f"_f{number}_" in test for _, test in named), f"F{number} names no test of that name"
        for file, test in named:
            assert f"def {test}(" in (TESTS / file).read_text(), f"F{number}: no {test} in {file}"
