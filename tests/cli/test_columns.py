"""A table fits a narrow terminal, and no word in it is broken: names can be copied."""

from __future__ import annotations

import re

import pytest

from dagster_slurm_components.cli import terminal
from dagster_slurm_components.cli.columns import fold, lined
from dagster_slurm_components.cli.job_rows import COLUMNS

TITLES = ["job", "state", "reason", "step", "at"]
ROWS = [
    ["4711", "RUNNING", "", "digits__split__of__many__parts", "src/my_project/defs/digits/defs.yaml:4:21"],
    ["123_45", "PENDING", "Priority", "climate__monthly__mean", "profiles/local.yaml:4:21"],
]


@pytest.mark.parametrize("width", [200, 80, 60, 20])
def test_words_stay_whole_and_lines_short(width: int) -> None:
    lines = lined(TITLES, ROWS, width)
    if width >= 60:
        assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for row in ROWS:
        for word in re.split(r"(?<=__)|(?<=/)|(?<=[a-z]\.)", " ".join(row)):
            for piece in word.split():
                assert piece in text, piece


def test_a_name_that_is_folded_is_whole_when_its_lines_are_joined() -> None:
    text = "digits__split__of profiles/local.yaml:4:21 version 1.25"
    assert "".join(fold(text, 12)) == text
    assert fold(text, 12)[:2] == ["digits__", "split__of "]
    assert fold("GPU-a100, GPU-a40, x/y", 11) == ["GPU-a100, ", "GPU-a40, ", "x/y"]
    assert fold("1.25", 2) == ["1.25"], "a number is one word"


def test_a_column_without_text_is_left_out_on_a_terminal() -> None:
    assert lined(["a", "b"], [["1", ""]], 80) == ["a", "-", "1"]


def job(**more: object) -> dict[str, object]:
    texts = dict.fromkeys(("reason", "dagster_partition", "exit_code", "memory_max_mib"))
    return {
        **texts,
        **{"job_id": "1234567", "state": "RUNNING", "left": False, "slurm_partition": "boost_usr_prod"},
        **{"node": "lrdn[0001-0016]", "step": "climate__monthly__mean", "waited_s": 61.0, "ran_s": 7200.0},
        **{"memory_asked_mib": 65536, "run_id": "8d1f0000-1111"},
        **more,
    }


def test_jobs_with_all_that_slurm_says_fit_80_columns() -> None:
    rows = [job(), job(state="PENDING", reason="QOSMaxJobsPerUserLimit", dagster_partition="2026-11-02")]
    cells = [["" if cell is None else str(cell) for cell in row] for row in terminal.cells(rows, COLUMNS)]
    lines = lined(list(COLUMNS), cells, 80)
    assert max(map(len, lines)) <= 80
    for word in (
        "boost_usr_prod",
        "QOSMaxJobsPerUserLimit",
        "lrdn[0001-0016]",
        "02:00:00",
        "01:01",
        "?/65536",
    ):
        assert word in "\n".join(lines)


def test_what_is_piped_is_separated_by_tabs_and_has_all_columns(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(["a", "b", "c"], [[1, None, "x\ny"]])
    assert capsys.readouterr().out == "a\tb\tc\n1\t\tx y\n"
