"""The figures beside a materialization, from the job's own record and from the accounting."""

from __future__ import annotations

import dagster as dg
from usage_fixture import node

from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.figures import job_figures
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.reconcile import Evidence, Observation
from dagster_slurm_components.jobs.status import parse_status
from dagster_slurm_components.jobs.usage import NodeUsage
from dagster_slurm_components.pipes.results import typed
from dagster_slurm_components.slurm.accounting import AccountingRow

HANDLE = JobHandle("7", "/w/runs/r/s/0", submitted=100.0)
STATUS = (
    b"restart=0\nstarted=110\nhost=node1\npartition=gpu\nnodes=node[1-2]\nnum_nodes=2\ncpus_per_node=4(x2)\n"
    b"mem_per_node_mb=1000\ncpu=0m8.000s 0m2.000s\nended=210\nexit=0\n"
)


def figures(
    status: bytes, row: AccountingRow | None = None, *usage: NodeUsage, whole_nodes: bool = False
) -> dict[str, object]:
    evidence = Evidence(status=parse_status(status), accounting=row)
    ended = Ended(Observation(state="COMPLETED", exit_code=0), evidence, usage)
    return dict(job_figures(HANDLE, ended, profile="staging", host="login", whole_nodes=whole_nodes))


def test_the_jobs_own_record_gives_most_of_it() -> None:
    found = figures(STATUS)
    assert found["job/queue_wait_s"] == 10
    assert found["job/elapsed_s"] == 100
    assert found["job/node_hours"] == round(200 / 3600, 4)
    assert found["job/memory_asked_mib"] == 2000
    assert (found["job/partition"], found["job/nodes"]) == ("gpu", "node[1-2]")
    # The first node's CPU time says nothing of the second's.
    assert "job/cpu_efficiency" not in found


def test_one_node_knows_its_cpu_efficiency() -> None:
    one = STATUS.replace(b"num_nodes=2", b"num_nodes=1").replace(b"4(x2)", b"4")
    assert figures(one)["job/cpu_efficiency"] == 10 / (100 * 4)


def test_memory_by_cpu_is_summed() -> None:
    by_cpu = STATUS.replace(b"mem_per_node_mb=1000", b"mem_per_cpu_mb=200")
    assert figures(by_cpu)["job/memory_asked_mib"] == 1600


def test_the_accounting_knows_better() -> None:
    row = AccountingRow(
        job_id="7",
        state="COMPLETED",
        alloc_cpus=8,
        num_nodes=2,
        elapsed_s=100,
        total_cpu_s=400.0,
        start=110,
        used_memory_bytes=2**30,
        req_mem_bytes=2**31,
        nodes="node[1-2]",
        partition="gpu",
    )
    found = figures(STATUS, row)
    assert found["job/cpu_efficiency"] == 0.5
    assert (found["job/memory_max_mib"], found["job/memory_asked_mib"]) == (1024.0, 2048.0)
    assert found["job/memory_efficiency"] == 0.5


def test_what_the_sampler_saw() -> None:
    found = figures(STATUS, None, node(0, gpus=2), node(1, gpus=2))
    assert found["job/memory_max_mib"] == 2 * 41 * 1024
    assert found["job/core_hours"] == round(8 * 100 / 3600, 4)
    assert found["job/gpu_hours"] == round(4 * 100 / 3600, 4)
    assert (found["job/gpus_idle"], found["job/energy_source"]) == (2, "GPUs alone, by their driver")
    # Both nodes know their CPU time; one alone says nothing of the other.
    assert "job/cpu_efficiency" in found
    assert "job/cpu_efficiency" not in figures(STATUS, None, node(0))


def test_a_peak_between_two_of_slurms_samples_counts() -> None:
    row = AccountingRow(job_id="7", state="COMPLETED", used_memory_bytes=2**30)
    assert figures(STATUS, row, node())["job/memory_max_mib"] == 41 * 1024
    assert figures(STATUS, row)["job/memory_max_mib"] == 1024


def test_slurms_energy_is_the_jobs_where_it_has_whole_nodes() -> None:
    row = AccountingRow(job_id="7", state="COMPLETED", energy_j=7_200_000)
    found = figures(STATUS, row, node(gpus=2), whole_nodes=True)
    assert (found["job/energy_kwh"], found["job/energy_source"]) == (2.0, "whole nodes, by Slurm")
    assert figures(STATUS, row, node(gpus=2))["job/energy_source"] == "GPUs alone, by their driver"
    assert "job/energy_kwh" not in figures(STATUS, row)


def test_a_job_without_any_record_still_has_its_identity() -> None:
    found = figures(b"")
    assert found["job/id"] == "7"
    assert found["job/run_directory"] == "/w/runs/r/s/0"


def test_an_address_can_be_clicked() -> None:
    shown = typed({"job/ray_dashboard": "http://127.0.0.1:30001"})
    assert isinstance(shown["job/ray_dashboard"], dg.UrlMetadataValue)


def test_pictures_and_notes_are_markdown() -> None:
    for name in ("job/usage", "job/chart", "job/notes"):
        assert isinstance(typed({name: "*"})[name], dg.MarkdownMetadataValue)


def test_co2_is_told_by_the_users_figure_alone() -> None:
    status, row = parse_status(STATUS), AccountingRow(job_id="7", state="COMPLETED", energy_j=7_200_000)

    def co2(row: AccountingRow | None, figure: float | None, *, whole_nodes: bool) -> object:
        ended = Ended(Observation(state="COMPLETED", exit_code=0), Evidence(status=status, accounting=row))
        told = job_figures(
            HANDLE, ended, profile="p", host="h", whole_nodes=whole_nodes, co2_g_per_kwh=figure
        )
        return told.get("job/co2_g")

    assert co2(row, 350.0, whole_nodes=True) == 700.0
    assert co2(row, None, whole_nodes=True) is None
    assert co2(row, 350.0, whole_nodes=False) is None, "whose energy it was is not known"
    assert co2(None, 350.0, whole_nodes=True) is None
