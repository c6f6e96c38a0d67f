"""The pictures of what a job used: as golden files, within Dagster's bounds, well-formed whatever was sampled."""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from usage_fixture import CASES, GIB, node

from dagster_slurm_components.jobs import svg
from dagster_slurm_components.jobs.chart import LARGEST, chart
from dagster_slurm_components.jobs.element_map import DONE, element_map
from dagster_slurm_components.jobs.sparkline import sparkline
from dagster_slurm_components.jobs.timeline import Span, table, timeline
from dagster_slurm_components.jobs.totals import usage_figures
from dagster_slurm_components.jobs.usage import Gpu, GpuSample, NodeUsage, Sample

GOLDEN = Path(__file__).parent / "golden"
IMAGE = re.compile(r"!\[[^]]*\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)")
INLINE = 1000
"""Dagster's webserver draws Markdown inline that is shorter."""

_LARGE = 10**18
_SIZES = st.none() | st.integers(-_LARGE, _LARGE)
_NUMBERS = st.none() | st.floats(-_LARGE, _LARGE)
_TIMES = st.floats(-_LARGE, _LARGE) | st.floats(1.7e9, 1.8e9)
_GPUS = st.lists(st.builds(GpuSample, busy=_NUMBERS, memory=_SIZES, joules=_NUMBERS), max_size=3).map(tuple)
_SAMPLES = st.lists(
    st.builds(Sample, at=_TIMES, cpu=_NUMBERS, memory=_SIZES, peak=_SIZES, gpus=_GPUS), max_size=12
)
_NODES = st.builds(
    NodeUsage,
    node=st.text(max_size=40),
    cpus=st.integers(1, 10_000),
    memory_limit=_SIZES,
    source=st.just("cgroup2"),
    gpus=st.integers(0, 3).map(lambda count: tuple(Gpu("", "", 80 * GIB) for _ in range(count))),
    starts=st.lists(_TIMES, max_size=3).map(lambda starts: tuple(sorted(starts))),
    samples=_SAMPLES.map(lambda samples: tuple(sorted(samples, key=lambda sample: sample.at))),
)


def picture(markdown: str) -> str:
    """Return the SVG in a text of Markdown; it is well-formed."""
    found = IMAGE.search(markdown)
    assert found
    drawn = base64.b64decode(found[1]).decode()
    ElementTree.fromstring(drawn)
    return drawn


def is_golden(name: str, drawn: str) -> bool:
    file = GOLDEN / f"{name}.svg"
    text = drawn.replace("><", ">\n<") + "\n"
    if os.environ.get("DAGSTER_SLURM_UPDATE_GOLDEN") == "1":
        file.write_text(text)
    return text == file.read_text()


@pytest.mark.parametrize("name", CASES)
def test_pictures_are_the_golden_ones(name: str) -> None:
    usage, waited = CASES[name]
    short, full = sparkline(usage), chart(usage, waited=waited)
    assert short is not None
    assert full is not None
    assert len(short) < INLINE <= len(full) <= LARGEST
    assert is_golden(f"sparkline-{name}", picture(short))
    assert is_golden(f"chart-{name}", picture(full))


def test_every_golden_file_has_its_case() -> None:
    assert {file.stem.partition("-")[2] for file in GOLDEN.glob("[cs][hp]a*.svg")} == set(CASES)


def test_a_line_says_the_numbers() -> None:
    said = [(sparkline(CASES[name][0]) or "").rpartition("\n")[2] for name in CASES]
    assert said == [
        "memory 41 of 64 GiB, CPU 2.2 of 4",
        "memory 41 of 64 GiB, CPU 2.2 of 4, GPU 67 %",
        "memory 41 of 64 GiB, CPU 2.2 of 4",
        "memory 41 of 64 GiB on the fullest node, CPU 8.4 of 16, GPU 45 %",
        "memory 41 of 64 GiB on the fullest node, CPU 24 of 48",
        "memory 5.8 GiB, CPU 2.1 of 4",
    ]


def test_what_is_hardly_known_is_not_drawn() -> None:
    for usage in ([], [node(length=10)], [NodeUsage("n", 1, None, "processes", (), (), ())]):
        assert sparkline(usage) is None
        assert chart(usage) is None


def test_a_chart_tells_the_wait_the_restarts_the_limits_and_each_node() -> None:
    full = picture(chart(CASES["requeued"][0], waited=30.0) or "")
    assert ">00:00:30 in the queue before it started; start 2 at 00:33:20<" in full
    assert ">dashed: 64 GiB: limit of the job<" in full
    assert full.count('stroke-dasharray="1 2"') == 2  # one mark in each panel
    nodes = picture(chart(CASES["four-nodes"][0]) or "")
    assert all(f">node{number}<" in nodes and f">node{number} GPU 1<" in nodes for number in range(1, 5))


def test_of_many_lines_three_are_drawn() -> None:
    full = picture(chart([node(each, gpus=4) for each in range(40)]) or "")
    assert full.count(">highest<") == full.count(">lowest<") == 4
    assert ">mean of 160<" in full


def test_a_map_of_elements() -> None:
    states = [DONE] * 120 + ["FAILED", "TIMEOUT", DONE, "NODE_FAIL", "OUT_OF_MEMORY"]
    drawn = element_map(states)
    assert is_golden("elements", picture(drawn))
    assert drawn.endswith("\n\n121 done, 1 FAILED, 1 OUT_OF_MEMORY, 1 TIMEOUT, 1 NODE_FAIL")
    # A row of equal ones is drawn at once; the last cell is the legend's.
    assert f'<path d="M0 5h598M0 17h598M0 29h238M264 29h10M0 48h10" stroke="{svg.COLOURS[2]}"' in picture(
        drawn
    )


@given(st.lists(st.sampled_from([DONE, "FAILED", "TIMEOUT", "NODE_FAIL"]), min_size=1, max_size=1000))
def test_a_thousand_elements_are_few_bytes(states: list[str]) -> None:
    assert len(element_map(states)) <= LARGEST


def test_of_more_elements_several_share_a_cell() -> None:
    drawn = element_map([DONE] * 2500 + ["FAILED"] + [DONE] * 1499)
    assert drawn.endswith("3999 done, 1 FAILED; 4 elements a cell")
    assert f'd="M300 149h10M150 252h10" stroke="{svg.COLOURS[1]}"' in picture(drawn)


_BEGIN = 1_767_225_600.0
_RUN = [
    Span("4711", "load", _BEGIN, _BEGIN + 30, _BEGIN + 630, "COMPLETED"),
    Span("4712", "train (8 elements)", _BEGIN + 640, _BEGIN + 1840, _BEGIN + 5440, "OUT_OF_MEMORY"),
    Span("4720", "train (8 elements)", _BEGIN + 5450, _BEGIN + 5500, _BEGIN + 9100, "COMPLETED"),
    Span("4721", "a & b 2026-01-01|c", _BEGIN + 9110, None, _BEGIN + 10_000, "CANCELLED"),
]


def test_a_run_over_time() -> None:
    drawn = timeline(_RUN)
    assert is_golden("timeline", picture(drawn))
    assert drawn.endswith("\n\n4 jobs in 02:46:40; thin and grey: in the queue")
    assert table(_RUN).splitlines() == [
        "```text",
        "job   step                submitted (UTC)      waited    ran       end",
        "4711  load                2026-01-01 00:00:00  00:00:30  00:10:00  COMPLETED",
        "4712  train (8 elements)  2026-01-01 00:10:40  00:20:00  01:00:00  OUT_OF_MEMORY",
        "4720  train (8 elements)  2026-01-01 01:30:50  00:00:50  01:00:00  COMPLETED",
        "4721  a & b 2026-01-01|c  2026-01-01 02:31:50  00:14:50            CANCELLED",
        "```",
        "4 jobs",
    ]


def test_a_short_run_over_time_is_drawn_inline() -> None:
    assert len(timeline(_RUN[:3])) < INLINE


def test_of_a_thousand_jobs_the_longest_are_shown() -> None:
    spans = [
        Span(
            str(number),
            f"&{'<' * 90}",
            _BEGIN + number,
            _BEGIN + number + 1,
            _BEGIN + 2 * number,
            "NODE_FAIL",
        )
        for number in range(1000)
    ]
    assert len(timeline(spans)) <= LARGEST
    assert len(table(spans)) <= LARGEST
    assert timeline(spans).endswith(
        "\n\n1000 jobs in 00:33:18; thin and grey: in the queue; the 40 that took longest are shown"
    )
    told = table(spans).splitlines()
    assert [line.split()[0] for line in told[2:-2]] == [str(number) for number in range(960, 1000)]


@given(
    st.lists(
        st.builds(
            Span,
            job_id=st.just("1"),
            name=st.text(),
            submitted=st.none() | st.floats(0, 4e9),
            started=st.none() | _TIMES,
            ended=_TIMES,
            end=st.sampled_from(["COMPLETED", "FAILED", "PENDING"]),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_whatever_the_clocks_say(spans: list[Span]) -> None:
    assert "nan" not in picture(timeline(spans))
    assert len(table(spans).splitlines()) == min(len(spans), 40) + 4


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colour", [*svg.COLOURS, svg.GREY])
@pytest.mark.parametrize("background", ["#FFFFFF", "#1A1B20"])
def test_colours_are_seen_in_both_themes(colour: str, background: str) -> None:
    """WCAG 2 asks for 3 to 1 of what is drawn."""
    low, high = sorted([luminance(colour), luminance(background)])
    assert (high + 0.05) / (low + 0.05) >= 3


@settings(deadline=None)  # on a busy machine
@given(st.lists(_NODES, max_size=3))
def test_whatever_was_sampled(usage: Sequence[NodeUsage]) -> None:
    short, full = sparkline(usage), chart(usage, waited=1.0)
    assert all(math.isfinite(each) for each in usage_figures(usage).values() if isinstance(each, int | float))
    if short is not None:
        assert len(short) < INLINE
        picture(short)
    if full is not None:
        assert len(full) <= LARGEST
        assert "nan" not in picture(full)
