"""Lines out of pieces: never lost, never copied over and over, never without end in memory."""

from __future__ import annotations

import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.jobs.lines import Lines, TooLong


@given(st.binary().map(lambda raw: raw.replace(b"x", b"\n")), st.lists(st.integers(0, 200), max_size=9))
def test_any_pieces_give_the_same_lines(data: bytes, cuts: list[int]) -> None:
    lines, found = Lines(), []
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in pairwise(places):
        found += list(lines.feed(data[begin:end]))
    *whole, rest = data.split(b"\n")
    assert [line for _, line in found] == whole
    assert all(data[begin:].startswith(line) for begin, line in found if isinstance(line, bytes))
    assert lines.position == len(data) - len(rest)
    assert lines.rest() == rest


def test_a_line_that_is_too_long_is_counted_and_the_next_one_is_whole() -> None:
    lines = Lines(longest=4096)
    assert [*lines.feed(b"first\n")] == [(0, b"first")]
    for _ in range(100):
        assert [*lines.feed(b"x" * 1000)] == []
    assert lines.position == 6
    assert [*lines.feed(b"end\nnext\n")] == [
        (6, TooLong(b"x" * 1024, 100_003)),
        (100_010, b"next"),
    ]
    assert lines.position == 100_015


def test_a_long_line_in_many_pieces_costs_each_byte_once() -> None:
    lines = Lines()
    piece = b"x" * 1024
    begun = time.process_time()
    for _ in range(20_000):  # 20 MiB; joined anew each time, these would be 200 GiB of copies
        assert [*lines.feed(piece)] == []
    ((begin, line),) = lines.feed(b"\n")
    assert (begin, len(line) if isinstance(line, bytes) else 0) == (0, 20_000 * 1024)
    assert time.process_time() - begun < 5
