"""What a job used, in numbers."""

from __future__ import annotations

from usage_fixture import node

from dagster_slurm_components.jobs.totals import cpu_seconds, usage_figures
from dagster_slurm_components.jobs.usage import Sample


def test_figures_of_a_node_with_gpus() -> None:
    figures = usage_figures([node(gpus=4)])
    rounded = {name: round(each, 2) if isinstance(each, float) else each for name, each in figures.items()}
    assert rounded == {
        "job/memory_max_mib": 41 * 1024,
        "job/memory_node_max_mib": None,
        "job/cpus_busy": 3.56,
        "job/gpus": 4,
        "job/gpus_idle": 1,
        "job/gpu_busy": 0.67,
        "job/gpu_memory_max_mib": 60 * 1024,
        "job/read_mib": 11444.09,
        "job/written_mib": 1200,
        "job/energy_kwh": 0.62,  # 1,200 s of 60 W and of three times 600 W
        "job/energy_source": "GPUs alone, by their driver",
    }


def test_nodes_are_added_up() -> None:
    nodes = [node(0), node(1, length=600)]
    figures = usage_figures(nodes)
    assert figures["job/memory_node_max_mib"] == 41 * 1024
    assert figures["job/memory_max_mib"] == sum(each.samples[-1].memory or 0 for each in nodes) / 2**20
    assert figures["job/written_mib"] == 1800


def test_the_newest_start_counts() -> None:
    once, twice = [node()], [node(starts=(1000.0, 5000.0))]
    assert usage_figures(twice) == usage_figures(once)
    assert cpu_seconds(twice) == cpu_seconds(once) == once[0].samples[-1].cpu


def test_what_one_node_does_not_know_is_not_known() -> None:
    one = node()
    blind = type(one)("node2", 4, None, "processes", (), (1000.0,), (Sample(1005.0),))
    figures = usage_figures([one, blind])
    assert figures["job/memory_max_mib"] is figures["job/written_mib"] is None
    assert cpu_seconds([one, blind]) is None
    assert set(usage_figures([]).values()) == {None}
