"""Times, sizes and ids."""

import doctest
import importlib
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components import slurm, units
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.slurm import commands

MODULES = ["units", *sorted(f"slurm.{module.name}" for module in pkgutil.iter_modules(slurm.__path__))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(f"dagster_slurm_components.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1-02:03:04.567", 93784.567),
        ("02:03:04", 7384),
        ("00:05.215", 5.215),
        ("00:00:00", 0),
        ("2-00:00:00", 172800),
        ("", None),
        ("UNLIMITED", None),
        ("Partition_Limit", None),
        ("-1", None),
        ("1:2:3:4", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60", 3600),
        ("1:30", 90),
        ("01:00:00", 3600),
        ("1-0", 86400),
        ("1-02:03", 93780),
        ("1-02:03:04", 93784),
        ("UNLIMITED", None),
        ("INFINITE", None),
        ("", None),
    ],
)
def test_time_limits(text: str, seconds: int | None) -> None:
    assert units.parse_time_limit(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4927488", 4927488),
        ("2048K", 2 * 2**20),
        ("1.50G", 3 * 2**29),
        ("2T", 2 * 2**40),
        ("16?", None),
        ("", None),
        ("0", 0),
        ("-1", None),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["Unknown", "N/A", "None", "", "0", "2026-11-22T17:16:19", "NONE", "-1"])
def test_unknown_times(text: str) -> None:
    assert units.parse_epoch(text) is None


@pytest.mark.parametrize(
    ("text", "pair"),
    [("3:0", (3, None)), ("0:9", (0, 9)), ("0:125", (0, 125)), ("", (None, None)), ("1", (None, None))],
)
def test_exit_codes(text: str, pair: tuple[int | None, int | None]) -> None:
    assert units.parse_exit_code(text) == pair


@given(st.text())
def test_no_text_breaks_a_value_parser(text: str) -> None:
    for parse in (
        units.parse_duration,
        units.parse_time_limit,
        units.parse_size,
        units.parse_epoch,
        units.parse_count,
        units.parse_exit_code,
        commands.is_job_id,
        commands.is_printed_id,
    ):
        parse(text)


@given(st.integers(0, 10**7))
def test_durations_are_read_as_they_are_written(seconds: int) -> None:
    assert units.parse_duration(units.format_duration(seconds)) == seconds


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (8 * 2**30, "8.0 GiB")])
def test_sizes_for_people(size: int, text: str) -> None:
    assert units.format_size(size) == text


@pytest.mark.parametrize("job_id", ["1", "123", "123_4", "123+0"])
def test_job_ids(job_id: str) -> None:
    assert commands.is_job_id(job_id)


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1 2", "1;lab", "1,2", "123_[1-2]", "1\n", "--user=x", "1_", "１"]
)
def test_what_is_no_job_id(text: str) -> None:
    assert not commands.is_job_id(text)
    with pytest.raises(DagsterSlurmError, match="no Slurm job id"):
        commands.check_job_ids(["1", text])


def test_no_ids_is_an_error() -> None:
    with pytest.raises(DagsterSlurmError, match="No job id"):
        commands.check_job_ids([])


@pytest.mark.parametrize("text", ["123", "123_4", "123_[0-9%4]", "123_[1,3,5-7]", "123_[1,3,...]", "123+1"])
def test_ids_as_squeue_prints_them(text: str) -> None:
    assert commands.is_printed_id(text)
