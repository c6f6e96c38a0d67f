"""Notes on what a job asked for and used: what is said when, and that a value that is named is a good one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.jobs.notes import notes
from dagster_slurm_components.spec import asked
from dagster_slurm_components.spec.resources import Resources

HOUR = {"job/elapsed_s": 3600.0, "job/state": "COMPLETED"}
DAY = "1-00:00:00"


@pytest.mark.parametrize(
    ("figures", "resources", "said"),
    [
        ({"job/memory_max_mib": 6144}, {"mem": "256G"}, "used 6 of 256 GiB: `mem: 10G` would do (t.yaml:3)"),
        (
            {"job/memory_max_mib": 40960, "job/memory_node_max_mib": 15360},
            {"mem": "64G", "nodes": 4},
            "used 15 of 64 GiB on the fullest node: `mem: 30G` would do (t.yaml:3)",
        ),
        (
            {"job/memory_max_mib": 6144},
            {"mem_per_cpu": "16G", "cpus_per_task": 4},
            "used 6 of 64 GiB: `mem_per_cpu: 3G` would do (t.yaml:3)",
        ),
        (
            {"job/memory_max_mib": 300},
            {"mem_per_gpu": "8G", "gpus_per_node": 2},
            "used 0.3 of 16 GiB: `mem_per_gpu: 300M` would do (t.yaml:3)",
        ),
        ({"job/gpus": 4, "job/gpus_idle": 3}, {"nodes": 2, "gpus_per_node": 2}, "3 of 4 GPUs idle"),
        (
            {"job/gpus": 4, "job/gpus_idle": 3},
            {"gpus_per_node": "a100:4"},
            "3 of 4 GPUs idle: `gpus_per_node: a100:1` would do (t.yaml:3)",
        ),
        (
            {"job/gpus": 2, "job/gpus_idle": 1},
            {"gres": "gpu:2"},
            "1 of 2 GPUs idle: `gres: gpu:1` would do (t.yaml:3)",
        ),
        ({"job/gpus": 4, "job/gpus_idle": 4}, {"gpus": 4}, "4 of 4 GPUs idle"),
        (
            {"job/cpus_busy": 1.04},
            {"cpus_per_task": 16},
            "1 of 16 CPUs used: `cpus_per_task: 1` would do (t.yaml:3)",
        ),
        ({"job/cpu_efficiency": 0.03}, {"ntasks": 16}, "1 of 16 CPUs used"),
        (
            {"job/cpus_busy": 1.0, "job/memory_max_mib": 6144},
            {"cpus_per_task": 16, "mem_per_cpu": "2G"},
            "1 of 16 CPUs used: `cpus_per_task: 5` would do (t.yaml:3)",  # fewer would have too little memory
        ),
        (
            {"job/elapsed_s": 86_160},
            {"time": DAY},
            'ended 4 min before its 24 h limit: `time: "1-12:00:00"` would do (t.yaml:3)',
        ),
        (
            {"job/elapsed_s": 120, "job/queue_wait_s": 10_800},
            {},
            "waited 3 h, ran 2 min: let one job do more",
        ),
    ],
)
def test_what_is_said(figures: dict[str, Any], resources: dict[str, Any], said: str) -> None:
    (note,) = notes({**HOUR, **figures}, Resources(**resources))
    assert note.told("t.yaml:3") == said


@pytest.mark.parametrize(
    ("figures", "resources"),
    [
        ({"job/elapsed_s": 50, "job/memory_max_mib": 10}, {"mem": "256G"}),
        ({"job/memory_max_mib": 10}, {"mem": "1000M"}),
        ({"job/memory_max_mib": 10}, {"mem": 0}),
        ({"job/memory_max_mib": 10}, {}),
        ({"job/memory_max_mib": 150_000}, {"mem": "256G"}),
        ({"job/cpus_busy": 0.1}, {"cpus_per_task": 1}),
        ({"job/cpus_busy": 9.5}, {"cpus_per_task": 16}),
        ({"job/cpu_efficiency": 0.3}, {"cpus_per_task": 16}),
        ({"job/cpus_busy": 1.0, "job/memory_max_mib": 20_000}, {"cpus_per_task": 16, "mem_per_cpu": "2G"}),
        ({"job/gpus": 4, "job/gpus_idle": 0}, {"gpus": 4}),
        ({"job/elapsed_s": 86_160, "job/state": "FAILED"}, {"time": DAY}),
        ({"job/elapsed_s": 86_401}, {"time": DAY}),
        ({"job/elapsed_s": 70_000}, {"time": DAY}),
        ({"job/elapsed_s": 3000, "job/queue_wait_s": 36_000}, {}),
        ({"job/elapsed_s": 2, "job/queue_wait_s": 500}, {}),
    ],
)
def test_nobody_is_nagged(figures: dict[str, Any], resources: dict[str, Any]) -> None:
    assert notes({**HOUR, **figures}, Resources(**resources)) == ()


def test_short_jobs_of_many_keys_belong_together() -> None:
    (note,) = notes({"job/elapsed_s": 120, "job/queue_wait_s": 10_800}, Resources(), keys=True)
    assert note.text == ("waited 3 h, ran 2 min: put several keys in one job (`array: {keys_per_task: ...}`)")


_MEMORY = st.sampled_from(["mem", "mem_per_cpu", "mem_per_gpu"])
_ASKED = st.fixed_dictionaries(
    {"cpus_per_task": st.integers(1, 128), "gpus_per_node": st.integers(1, 8), "ntasks": st.integers(1, 8)}
)


@given(_ASKED, _MEMORY, st.integers(1, 4096), st.floats(1, 4e6), st.floats(0, 130), st.integers(0, 8))
def test_what_is_named_is_less_and_enough(
    resources: dict[str, Any], memory: str, gib: int, used: float, busy: float, idle: int
) -> None:
    before = Resources(**resources, **{memory: f"{gib}G"})
    gpus = resources["gpus_per_node"]
    figures = {**HOUR, "job/memory_max_mib": used, "job/cpus_busy": busy, "job/gpus": gpus}
    figures |= {"job/gpus_idle": min(idle, gpus)}
    found = notes(figures, before)
    named = {note.option: note.value for note in found if note.option and note.value}
    after = Resources(**{**before.model_dump(exclude_none=True), **named})
    had, has = asked.memory_per_node(before), asked.memory_per_node(after)
    assert had is not None
    assert has is not None
    if has != had and (memory in named or memory != "mem_per_gpu"):
        assert 1.4 * used <= has < had
    assert (asked.cpus_per_node(after) or 0) >= min(busy - 0.1, asked.cpus_per_node(before) or 0)
    assert (asked.gpus_per_node(after) or 0) >= max(1, gpus - idle)
    assert [note.option for note in notes(figures, after) if note.option in named and note.value] == []
