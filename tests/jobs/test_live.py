"""A running job's line: short, plain, and without what is not known."""

from __future__ import annotations

import json

import pytest

from dagster_slurm_components.jobs.live import in_words
from dagster_slurm_components.jobs.meter import NodeNow, node_now
from dagster_slurm_components.jobs.usage import parse_usage

GIB = 2**30


def node(
    memory: float | None = None,
    limit: float | None = None,
    peak: float | None = None,
    cpu: float | None = None,
    gpus: int = 0,
    busy: float | None = 0.92,
) -> NodeNow:
    """Return a node whose memory is in GiB."""
    size = {name: value and int(value * GIB) for name, value in (("mem", memory), ("peak", peak))}
    cards = [["GPU-x", "H100", 80 * GIB]] * gpus
    head = {"node": "n1", "t": 0, "cpus": 4, "memory": limit and int(limit * GIB), "gpus": cards}
    gpu = [[busy, 61 * GIB, None, None, None]] * gpus
    lines = [head] + [{"t": at, **size, "cpu": cpu and cpu * at, "gpu": gpu} for at in (10, 70)]
    now = node_now(parse_usage("".join(f"{json.dumps(line)}\n" for line in lines).encode()))
    assert now is not None
    return now


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([], ""),
        ([node()], ""),
        ([node(cpu=3.84)], "CPU 3.8 of 4"),
        ([node(41, 64, 52, 3.8)], "memory 41 of 64 GiB (peak 52), CPU 3.8 of 4"),
        ([node(0.3, None, 0.5)], "memory 307 MiB (peak 512)"),
        ([node(0.01, 256, 5.96)], "memory 0 of 256 GiB (peak 6)"),
        (
            [node(41, 64, 52, 3.8, gpus=1)],
            "memory 41 of 64 GiB (peak 52), CPU 3.8 of 4, GPU 0: 92 %, 61 of 80 GiB",
        ),
        ([node(gpus=2)], "GPU 0: 92 %, 61 of 80 GiB, GPU 1: 92 %, 61 of 80 GiB"),
        ([node(gpus=1, busy=None)], "GPU 0: 61 of 80 GiB"),
        ([node(gpus=8)], "8 GPUs: 92 %, 61 of 80 GiB"),
        (
            [node(41, 64, 52, 3.8, gpus=1), node(60, 64, 62, 4.0, gpus=1, busy=0.05)],
            "on 2 nodes: memory 41 to 60 of 64 GiB each (peak 62), CPU 7.8 of 8, 2 GPUs: 5 to 92 %, 61 of 80 GiB",
        ),
        ([node(3, 64), node(5, 128)], "on 2 nodes: memory 3 to 5 GiB"),
        ([node(3, 64), node(cpu=1)], "on 2 nodes: memory 3 GiB, CPU 1 of 4"),
    ],
)
def test_in_words(nodes: list[NodeNow], words: str) -> None:
    assert in_words(nodes) == words
