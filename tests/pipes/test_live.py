"""What a job uses and how far it is stand in the log of its step, in a real run."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pytest
from project_fixture import Project
from reports_fixture import log
from waiting import eventually

from dagster_slurm_components.jobs import live, meter
from dagster_slurm_components.pipes.arrays import listen


def test_the_log_says_what_a_job_uses_and_how_far_it_is(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (live, meter):
        monkeypatch.setattr(module, "FIRST", 2.0)
    monkeypatch.setattr(live, "_PAUSES", (0.0,))
    project.write(
        "works.sh",
        """\
        until [ "$(wc -l <"$DAGSTER_SLURM_RUN_DIR/usage/0.jsonl")" -ge 4 ]; do sleep 0.2; done
        for at in $(seq 1 40); do
            printf '\\r %d%%|###   | %d/100 [00:10<00:15,  3.99it/s]' "$at" "$at" >&2
            sleep 0.25
        done
        """,
    )
    project.scripts("""
        scripts: [{payload: works.sh, assets: [{key: works}], resources: {time: "00:01:00"}}]
        """)
    result = project.run("local", instance=instance)
    assert result.success
    told = re.findall(r"^Job \S+: (.*)$", log(instance, result), re.MULTILINE)
    pattern = r"memory \S+ .*\(peak \S+\), CPU \S+ of \d+; \d+ % done, about \d+ (s|min) more"
    assert any(re.fullmatch(pattern, line) for line in told), f"a plain process has no time limit: {told}"


def test_one_line_says_what_the_elements_of_an_array_use(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "FIRST", 2.0)
    monkeypatch.setattr(listen, "_TELL_EVERY", (2.0, 2.0))
    gate = project.root / "gate"
    project.write("works.sh", f"until [ -e '{gate}' ]; do sleep 0.2; done")
    project.scripts("""
        scripts:
          - payload: works.sh
            array: {}
            op: {backfill_policy: {type: single_run}}
            assets: [{key: works, partitions_def: {type: static, partition_keys: [x, y]}}]
        """)
    tags = {"dagster/asset_partition_range_start": "x", "dagster/asset_partition_range_end": "y"}
    pattern = (
        r"Of the 2 elements of array \S+ 2 run\. "
        r"Those that run \(2 are known\) use: memory \S+ .*\(peak \S+\), CPU \S+ of \d+\."
    )

    def told() -> bool:
        records = instance.all_logs(run.run_id) if (run := next(iter(instance.get_runs()), None)) else []
        return any(re.fullmatch(pattern, record.user_message) for record in records)

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(project.run, "local", instance=instance, tags=tags)
        try:
            eventually(told, "both are seen to run")
        finally:
            gate.touch()
        assert result.result().success
