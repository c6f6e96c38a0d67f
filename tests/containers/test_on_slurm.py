"""Containers on two nodes of a real Slurm, by Apptainer: every launcher gives what it gives without one."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from containers.conftest import APPTAINER, runtime_or_skip
from launchers.harness import processes_of
from launchers.payloads import RAY_REPORT, TORCH_REPORT
from project_fixture import Project, failure_text

import slurm_testcluster as slurm

pytestmark = [pytest.mark.slurm, pytest.mark.ssh]

RANKS = """
import json, os, pathlib, sys
rank, folder = int(os.environ["SLURM_PROCID"]), pathlib.Path(sys.argv[2])
image = pathlib.Path("/etc/image")
(folder / f"rank-{rank}.json").write_text(json.dumps({
    "rank": rank,
    "node": os.environ["SLURMD_NODENAME"],
    "greeting": os.environ["GREETING"],
    "only_image": os.environ.get("ONLY_IMAGE"),
    "devices": os.environ["CUDA_VISIBLE_DEVICES"],
    "pythonpath": os.environ["PYTHONPATH"].split(":")[1:],
    "image": image.exists() and image.read_text(),
    "data": pathlib.Path(sys.argv[1], "data").read_text(),
    "slurm": any(os.access(f"{each}/srun", os.X_OK) for each in os.environ["PATH"].split(":")),
    "writable": os.access("/etc", os.W_OK),
}))
"""


RUNTIMES = pytest.mark.parametrize(
    ("program", "runtime"),
    [("apptainer", APPTAINER), ("ch-run", "runtime: charliecloud")],
    ids=["apptainer", "charliecloud"],
)


def materialize(project: Project, instance: dg.DagsterInstance, *select: str) -> dict[str, dict[str, Any]]:
    """Materialize assets in staging; return their metadata by key."""
    result = project.run("staging", instance=instance, select=select)
    said = "\n".join(record.user_message for record in instance.all_logs(result.run_id))
    assert result.success, said + failure_text(result)
    made = result.get_asset_materialization_events()
    return {
        event.asset_key.to_user_string(): {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in made
        if event.asset_key
    }


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("program", "runtime"), [("apptainer", APPTAINER), ("ch-run", "runtime: charliecloud")]
)
def test_ranks_of_srun_are_inside_with_the_users_variables(
    project: Project,
    cluster: slurm.Cluster,
    instance: dg.DagsterInstance,
    image_folder: Path,
    tmp_path: Path,
    program: str,
    runtime: str,
):
    runtime_or_skip(program)
    data = tmp_path / "some data"
    data.mkdir()
    (data / "data").write_text("seen")
    project.staging(cluster)
    project.write("ranks.py", RANKS)
    # Where a node has GPUs, slurmstepd takes CUDA_VISIBLE_DEVICES from a step that asks for none (26.05.5).
    project.scripts(f"""
        scripts:
          - payload: ranks.py
            args: ["/mnt", "{project.root / "cluster work"}"]
            launcher: {{type: srun}}
            env: {{GREETING: "the user's 'own' $(x)", CUDA_VISIBLE_DEVICES: "1"}}
            resources: {{nodes: 2, ntasks_per_node: 2, mem: 500M, time: "00:05:00", nodelist: "node1,node2"}}
            environment: {{type: container, image: "{image_folder}", {runtime}, bind: ["{data}:/mnt"]}}
            assets: [{{key: ranks}}]
    """)
    materialize(project, instance)
    written = [project.root / "cluster work" / f"rank-{number}.json" for number in range(4)]
    ranks = [json.loads(file.read_text()) for file in written]
    assert [each.pop("rank") for each in ranks] == [0, 1, 2, 3]
    nodes = [each.pop("node") for each in ranks]
    assert (nodes[0], nodes[2]) == (nodes[1], nodes[3])
    assert nodes[0] != nodes[2]
    same = {
        "greeting": "the user's 'own' $(x)",
        "only_image": "image",
        "devices": "1",
        "pythonpath": ["/image/lib"],
        "image": "the tests' image\n",
        "data": "seen",
        "slurm": False,
        "writable": False,
    }
    assert ranks == [same] * 4


@RUNTIMES
def test_a_rank_that_fails_inside_is_named_and_ends_the_others(
    project: Project,
    cluster: slurm.Cluster,
    instance: dg.DagsterInstance,
    image_folder: Path,
    program: str,
    runtime: str,
):
    runtime_or_skip(program)
    project.staging(cluster)
    code = "import os, sys, time; time.sleep(3); sys.exit(7) if os.environ['SLURM_PROCID'] == '1' else time.sleep(600)"
    project.write("fails.py", code)
    project.scripts(f"""
        scripts:
          - payload: fails.py
            launcher: {{type: srun, grace: 3}}
            resources: {{nodes: 2, ntasks: 2, mem: 500M, time: "00:05:00"}}
            environment: {{type: container, image: "{image_folder}", {runtime}}}
            assets: [{{key: fails}}]
    """)
    text = failure_text(project.run("staging", instance=instance))
    assert re.search(r"Rank 1 on \S+ ended with exit code 7, which ended the job", text), text
    (status,) = (project.root / "cluster work" / "runs").rglob("status")
    assert processes_of(status.parent) == {}


def test_containers_of_a_plugin_of_srun_are_steps(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, tmp_path: Path
):
    """pyxis is not here: a stand-in for srun drops its options and starts the step all the same."""
    stand_in = tmp_path / "bin" / "srun"
    stand_in.parent.mkdir()
    stand_in.write_text(f"""#!/bin/bash
if [ "$1" = --help ]; then echo " --container-image=[USER@]..."; exit; fi
words=()
for word in "$@"; do
    case $word in --container-*) printf '%s\\n' "$word" >>{tmp_path}/told ;; *) words+=("$word") ;; esac
done
exec {shutil.which("srun")} "${{words[@]}}"
""")
    stand_in.chmod(0o755)
    project.staging(cluster)
    project.write(
        "where.py", "import os, sys; print(os.environ['SLURM_PROCID'], os.environ['WHO'], sys.argv)"
    )
    project.scripts(f"""
        defaults:
          environment: {{type: container, runtime: pyxis, image: "{tmp_path}", setup: ['PATH={tmp_path}/bin:$PATH']}}
          resources: {{mem: 200M, time: "00:05:00"}}
          env: {{WHO: me}}
        scripts:
          - {{payload: where.py, assets: [{{key: one}}]}}
          - {{payload: where.py, assets: [{{key: ranks}}], name: ranks, launcher: {{type: srun, output: all}},
             resources: {{nodes: 2, ntasks_per_node: 2}}}}
    """)
    made = materialize(project, instance)
    printed = {key: Path(each["job/run_directory"], "stdout.log").read_text() for key, each in made.items()}
    assert printed["one"] == "0 me ['where.py']\n"
    assert sorted(printed["ranks"].splitlines()) == [f"{rank} me ['where.py']" for rank in range(4)]
    assert (tmp_path / "told").read_text().count(f"--container-image={tmp_path}\n") == 2


FRAMEWORKS = {
    "torchrun": ("{type: torchrun, nproc_per_node: 2}", TORCH_REPORT, {"sum": 6, "world": 4}),
    "ray": ("{type: ray}", RAY_REPORT, {"cpus": 4}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_frameworks_inside_give_what_they_give_outside(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, name: str
):
    """The image and, without a container, the folder that it was made of: the same packages, twice."""
    image, root = (os.environ.get(f"DAGSTER_SLURM_TEST_IMAGE{suffix}") for suffix in ("", "_ROOT"))
    if not image:
        pytest.skip("no image with PyTorch and Ray here: `make test-containers` makes one (minutes, 2 GB)")
    launcher, payload, expected = FRAMEWORKS[name]
    project.staging(cluster)
    project.write("payload.py", payload)
    inside = f'{{type: container, image: "{image}", {APPTAINER}}}'
    common = 'resources: {nodes: 2, cpus_per_task: 2, mem: 3G, time: "00:10:00"}'
    project.scripts(f"""
        scripts:
          - {{payload: payload.py, name: outside, launcher: {launcher}, {common}, assets: [{{key: outside}}],
             environment: {{type: path, path: "{root}/usr"}}}}
          - {{payload: payload.py, name: inside, launcher: {launcher}, {common}, assets: [{{key: inside}}],
             environment: {inside}}}
    """)
    made = materialize(project, instance)
    results = [
        {key: value for key, value in made[which].items() if not key.startswith("job/") and key != "nodes"}
        for which in ("outside", "inside")
    ]
    assert results[0] == results[1]
    assert expected.items() <= results[1].items()
    assert len(set(made["inside"]["nodes"].split(" "))) == 2
