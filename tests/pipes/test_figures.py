"""The figures beside a materialization, from the job's own record and from the accounting."""

from __future__ import annotations

import dagster as dg

from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.figures import job_figures
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.reconcile import Evidence, Observation
from dagster_slurm_components.jobs.status import parse_status
from dagster_slurm_components.pipes.results import typed
from dagster_slurm_components.slurm.accounting import AccountingRow

HANDLE = JobHandle("7", "/w/runs/r/s/0", submitted=100.0)
STATUS = (
    b"restart=0\nstarted=110\nhost=node1\npartition=gpu\nnodes=node[1-2]\nnum_nodes=2\ncpus_per_node=4(x2)\n"
    b"mem_per_node_mb=1000\ncpu=0m8.000s 0m2.000s\nended=210\nexit=0\n"
)


def figures(status: bytes, row: AccountingRow | None = None) -> dict[str, object]:
    evidence = Evidence(status=parse_status(status), accounting=row)
    ended = Ended(Observation(state="COMPLETED", exit_code=0), evidence)
    return dict(job_figures(HANDLE, ended, profile="staging", host="login"))


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


def test_a_job_without_any_record_still_has_its_identity() -> None:
    found = figures(b"")
    assert found["job/id"] == "7"
    assert found["job/run_directory"] == "/w/runs/r/s/0"


def test_an_address_can_be_clicked() -> None:
    shown = typed({"job/ray_dashboard": "http://127.0.0.1:30001"})
    assert isinstance(shown["job/ray_dashboard"], dg.UrlMetadataValue)
