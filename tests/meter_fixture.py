"""What a sampler writes beside a job, and a job that has begun to run."""

from __future__ import annotations

import json
from typing import Any

from watch_fixture import STARTED, World, handle

from dagster_slurm_components.jobs.events import Part, Watch

GIB = 2**30


def head(at: float = 1000.0, node: str = "n1", **more: Any) -> bytes:
    fields = {"node": node, "t": at, "cpus": 4, "memory": 64 * GIB, "from": "cgroup2", "gpus": [], **more}
    return json.dumps(fields).encode() + b"\n"


def sample(at: float, cpu: float = 0.0, **more: Any) -> bytes:
    fields = {"t": at, "cpu": cpu, "mem": GIB, "peak": 2 * GIB, "read": 5, "written": 5, **more}
    return json.dumps(fields).encode() + b"\n"


def started(world: World, number: int = 1, nodes: int = 1, part: Part = Part.JOB) -> Watch:
    watch = world.watcher.watch(handle(number), part=part)
    world.files.append(f"/runs/{number}/status", STARTED + f"num_nodes={nodes}\n".encode())
    world.run(2, every=1)
    return watch
