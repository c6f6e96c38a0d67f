"""Jobs as a sampler would have seen them."""

from __future__ import annotations

import math

from dagster_slurm_components.jobs.usage import Gpu, GpuSample, NodeUsage, Sample

GIB = 2**30


def node(
    number: int = 0,
    *,
    gpus: int = 0,
    starts: tuple[float, ...] = (1000.0,),
    length: int = 1200,
    cpus: int = 4,
    limit: int | None = 64 * GIB,
) -> NodeUsage:
    """Return what a job used on a node: CPUs in waves, memory that rises to 41 GiB, and one GPU that is idle."""
    return NodeUsage(
        f"node{number + 1}",
        cpus,
        limit,
        "cgroup2",
        tuple(Gpu(f"GPU-{each}", "H100", 80 * GIB) for each in range(gpus)),
        starts,
        tuple(
            Sample(
                at=start + at,
                cpu=cpus * (0.5 * at - 60 * math.cos(at / 150 + number) + 60 * math.cos(number)),
                memory=int((5 + 36 * min(1, at / 700)) * GIB),
                peak=int((5 + 36 * min(1, at / 700)) * GIB),
                read=10**7 * at,
                written=2**20 * at,
                gpus=tuple(_gpu(each, at) for each in range(gpus)),
            )
            for start in starts
            for at in range(5, length + 1, 5 if length <= 1200 else 20)
        ),
    )


def _gpu(number: int, at: int) -> GpuSample:
    if number == 0:
        return GpuSample(0.0, GIB // 2, 60.0, 30.0, 60.0 * at)
    return GpuSample(0.9 + 0.05 * math.sin(at / 40 + number), 60 * GIB, 600.0, 70.0, 600.0 * at)


CASES = {
    "one-node": ([node()], 10_440.0),
    "gpus": ([node(gpus=4)], 5.0),
    "requeued": ([node(starts=(1000.0, 3000.0))], 30.0),
    "four-nodes": ([node(each, gpus=2) for each in range(4)], None),
    "twelve-nodes": ([node(each) for each in range(12)], 7.0),
    "short-without-limit": ([node(limit=None, length=15)], 0.0),
}
"""Jobs by what they show, with the seconds that they waited."""
