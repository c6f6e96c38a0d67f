"""Values that payloads report, in Python assets downstream, and hooks: in processes, in threads, on a real Slurm."""

from __future__ import annotations

import dagster as dg
import pytest
from project_fixture import Project

import slurm_testcluster as slurm

pytestmark = pytest.mark.slow

SCRIPTS = """
scripts:
  - payload: train.sh
    array: {max_parallel: 2}
    op: {backfill_policy: {type: single_run}}
    assets: [{key: seed, partitions_def: {type: static, partition_keys: ["1", "2", "3"]}}]
  - payload: best.sh
    op: {hooks: "{{ cheer }}"}
    assets: [{key: best}]
"""
TRAIN = """
. pipes.sh
for key in $(pipes_partition_keys); do pipes_materialize seed "loss=0.$key" "model:path=$PWD/model"; done
"""
BEST = """
. pipes.sh
echo trained >model
pipes_materialize best rows=7 "model:path=$PWD/model"
"""
PYTHON = """
from pathlib import Path

import dagster as dg

from dagster_slurm_components import slurm_executor


@dg.asset(op_tags={"slurm/step": "thread"})
def in_a_thread(best: int):
    return dg.MaterializeResult(metadata={"got": best})


@dg.asset(ins={"losses": dg.AssetIn("seed", metadata={"value": "loss"})})
def ranking(losses: dict[str, float], best: Path):
    at_hand = best.read_text() if best.exists() else ""
    return dg.MaterializeResult(metadata={"got": losses, "name": best.name, "text": at_hand})


@dg.definitions
def executor():
    return dg.Definitions(assets=[in_a_thread, ranking], executor=EXECUTOR, resources={"chat": "the chat"})
"""
VARIABLES = """
import dagster as dg


@dg.success_hook(required_resource_keys={"chat"})
def cheers(context):
    context.log.info(f"{context.resources.chat} hears of {context.step_key}")


@dg.template_var
def cheer():
    return cheers
"""


def values(project: Project, executor: str, profile: str) -> dict[str, dict[str, object]]:
    """Run all assets, the partitions in a run of their own before; return what the Python assets got.

    The hook of a script has run, with its resource.
    """
    file = project.scripts(SCRIPTS)
    file.write_text(f"{file.read_text()}template_vars_module: .variables\n")
    project.write("variables.py", VARIABLES)
    project.write("train.sh", TRAIN)
    project.write("best.sh", BEST)
    (project.defs.parent / "python.py").write_text(PYTHON.replace("EXECUTOR", executor))
    project.dg("launch", "--assets", "seed", "--partition-range", "1...3", profile=profile)
    project.dg("launch", "--assets", "best,in_a_thread,ranking", profile=profile)
    got: dict[str, dict[str, object]] = {}
    with dg.DagsterInstance.from_config(str(project.root / "dagster home")) as instance:
        for name in ("in_a_thread", "ranking"):
            (record,) = instance.fetch_materializations(dg.AssetKey(name), limit=10).records
            made = record.asset_materialization
            assert made is not None
            messages = [entry.user_message for entry in instance.all_logs(record.run_id)]
            assert "the chat hears of best" in messages
            got[name] = {key: value.value for key, value in made.metadata.items()}
    return got


LOSSES = {"1": 0.1, "2": 0.2, "3": 0.3}


def test_in_processes(project: Project) -> None:
    assert values(project, "dg.multiprocess_executor", "local") == {
        "in_a_thread": {"got": 7},
        "ranking": {"got": LOSSES, "name": "model", "text": "trained\n"},
    }


@pytest.mark.slurm
def test_on_slurm_and_in_a_thread(project: Project, cluster: slurm.Cluster) -> None:
    project.staging(cluster)
    got = values(project, "slurm_executor", "staging")
    assert got["in_a_thread"] == {"got": 7}
    assert (got["ranking"]["got"], got["ranking"]["name"]) == (LOSSES, "model")
