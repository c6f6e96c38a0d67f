"""What the sampler writes, read: whole lines, several starts, and whatever else may stand in such a file."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.jobs.usage import Gpu, GpuSample, NodeUsage, Sample, parse_usage, usage_file

HEAD = {"node": "n1", "t": 100.5, "cpus": 4, "memory": 2**30, "from": "cgroup2", "gpus": [["GPU-1", "H", 80]]}
WORDS = [*HEAD, *("cpu", "mem", "peak", "read", "written", "received", "sent", "gpu")]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=8,
)


def lines(*parts: object) -> bytes:
    return b"".join(json.dumps(part).encode() + b"\n" for part in parts)


def test_all_fields() -> None:
    sample = {"t": 5, "cpu": 1.5, "mem": 7, "peak": 9, "read": 1, "written": 2, "received": 3, "sent": 4}
    found = parse_usage(lines(HEAD, {**sample, "gpu": [[0.5, 40, 300.5, 61, 1000], None]}))
    gpus = (GpuSample(0.5, 40, 300.5, 61, 1000), GpuSample())
    samples = (Sample(105.5, 1.5, 7, 9, 1, 2, 3, 4, gpus),)
    assert found == NodeUsage("n1", 4, 2**30, "cgroup2", (Gpu("GPU-1", "H", 80),), (100.5,), samples)


def test_a_requeued_job_and_a_line_in_flight() -> None:
    again = {"node": "n2", "t": 200, "cpus": 2}
    found = parse_usage(lines(HEAD, {"t": 1}, {"error": "no"}, again, {"t": 2}) + b'{"t": 7}')
    samples = (Sample(101.5), Sample(202))
    assert found == NodeUsage("n2", 2, None, "", (), starts=(100.5, 200), samples=samples)


def test_nothing_to_read() -> None:
    assert parse_usage(b"") is None
    assert parse_usage(lines({"t": 1, "cpu": 1})) is None
    assert parse_usage(json.dumps(HEAD).encode()) is None
    assert usage_file(3) == "usage/3.jsonl"


@given(st.lists(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40), max_size=5))
def test_strange_lines_hide_none_of_the_others(strange: list[bytes]) -> None:
    noise = b"\n".join(strange)
    data = lines(HEAD) + noise + b"\n" + lines(HEAD, {"t": 1.0, "mem": 5})
    found = parse_usage(data)
    assert found is not None
    assert found.starts[-1] == 100.5
    assert found.samples[-1] == Sample(101.5, memory=5)


@given(st.dictionaries(st.sampled_from(WORDS), JSON))
def test_fields_of_any_kind(fields: dict[str, object]) -> None:
    found = parse_usage(lines(HEAD, {**fields, "t": 1}, {**HEAD, **fields, "t": 3}, {**fields, "t": 2}))
    assert found is not None
    assert all(isinstance(sample.memory, int | None) for sample in found.samples)
