"""Times, sizes, ids and node lists."""

import doctest
import importlib
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components import slurm, units
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.slurm import ids
from dagster_slurm_components.slurm.hostlist import expand_hostlist

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
        ids.is_job_id,
        ids.is_printed_id,
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
    assert ids.is_job_id(job_id)


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1 2", "1;lab", "1,2", "123_[1-2]", "1\n", "--user=x", "1_", "１"]
)
def test_what_is_no_job_id(text: str) -> None:
    assert not ids.is_job_id(text)
    with pytest.raises(DagsterSlurmError, match="no Slurm job id"):
        ids.join_job_ids(["1", text])


def test_no_ids_is_an_error() -> None:
    with pytest.raises(DagsterSlurmError, match="No job id"):
        ids.join_job_ids([])


@pytest.mark.parametrize("text", ["123", "123_4", "123_[0-9%4]", "123_[1,3,5-7]", "123_[1,3,...]", "123+1"])
def test_ids_as_squeue_prints_them(text: str) -> None:
    assert ids.is_printed_id(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node1", ("node1",)),
        ("node[01-03,7],gpu1", ("node01", "node02", "node03", "node7", "gpu1")),
        ("node[098-101]", ("node098", "node099", "node100", "node101")),
        ("r[0-1]n[1-2]x", ("r0n1x", "r0n2x", "r1n1x", "r1n2x")),
        ("a,b-c.d_e", ("a", "b-c.d_e")),
        ("", ()),
        ("(null)", ()),
        ("None assigned", ()),
    ],
)
def test_hostlists(text: str, names: tuple[str, ...]) -> None:
    assert expand_hostlist(text) == names


@pytest.mark.parametrize(
    "text", ["n[1", "n1]", "n[[1]]", "n[]", "n[2-1]", "n[a]", "a,,b", "n[1-99999999]", "n[0-999][0-999]"]
)
def test_bad_hostlists(text: str) -> None:
    with pytest.raises(DagsterSlurmError, match="no node list"):
        expand_hostlist(text)


def test_the_limit_counts_all_names() -> None:
    assert len(expand_hostlist("a[1-5],b[1-5]", limit=10)) == 10
    with pytest.raises(DagsterSlurmError, match="too many"):
        expand_hostlist("a[1-5],b[1-6]", limit=10)


@given(st.text("n[]0123,-. \n", max_size=30) | st.text(max_size=30))
def test_hostlists_expand_or_say_why_not(text: str) -> None:
    try:
        names = expand_hostlist(text, limit=1000)
    except DagsterSlurmError:
        return
    assert len(names) <= 1000
    assert not any(character in name for name in names for character in "[],")


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 20)), min_size=1, max_size=4), st.integers(1, 5)
)
def test_ranges_expand_to_their_numbers(ranges: list[tuple[int, int]], width: int) -> None:
    text = ",".join(f"{first:0{width}}-{first + more:0{width}}" for first, more in ranges)
    numbers = [number for first, more in ranges for number in range(first, first + more + 1)]
    assert [int(name[1:]) for name in expand_hostlist(f"n[{text}]")] == numbers
