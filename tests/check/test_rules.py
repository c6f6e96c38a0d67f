"""What a script's fields must agree on, and the limits of sites."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dagster_slurm_components.spec.place import Position
from dagster_slurm_components.spec.project import check_project
from dagster_slurm_components.spec.rules import script_problems, site_problems
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.site import Site

SITE = Site.model_validate(
    {
        "account_required": True,
        "partitions": {
            "gpu": {
                "max_time": "1-00:00:00",
                "max_nodes": 4,
                "min_nodes": 2,
                "max_gpus_per_node": 4,
                "max_cpus_per_node": 32,
                "max_mem_per_node": "100G",
                "qos": ["normal", "debug"],
                "memory_option": "mem",
            },
            "long": {"max_time": "7-00:00:00"},
            "any": {},
            "whole": {"memory_option": "none", "gpu_option": "gpus_per_node"},
        },
        "qos": {"debug": {"max_time": "00:30:00"}, "normal": {}, "other": {}},
    }
)
RIGHT = {"account": "a", "partition": "gpu"}


def told(problems) -> list[tuple[str, str]]:
    return [(str(problem.path[-1]), problem.message) for problem in problems]


def of_site(**resources) -> list[tuple[str, str]]:
    script = Script.model_validate({"payload": "a", "resources": {**RIGHT, **resources}})
    return told(site_problems(script, SITE, lambda path: Position("f", 1, 1)))


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, []),
        ({"account": None}, [("account", "the site asks for an account")]),
        ({"partition": "gpuu"}, [("partition", "the site has no partition `gpuu`")]),
        ({"partition": None, "time": "UNLIMITED"}, []),
        ({"time": "1-00:00:00"}, []),
        ({"time": "1-00:00:01"}, [("time", "partition gpu: 1-00:00:01 is longer than its limit of 1-00:00:00")]),
        ({"time": "UNLIMITED"}, [("time", "partition gpu: UNLIMITED is longer than its limit of 1-00:00:00")]),
        ({"time": "2-00:00:00", "partition": "gpu,long"}, []),
        ({"nodes": 5}, [("nodes", "partition gpu: 5 nodes are more than its limit of 4")]),
        ({"nodes": "2-8"}, []),
        ({"nodes": 1}, [("nodes", "partition gpu: 1 nodes are fewer than its limit of 2")]),
        ({"gpus_per_node": 8}, [("gpus_per_node", "partition gpu: 8 GPUs on a node are more than its 4")]),
        ({"gres": "gpu:a100:8"}, [("gres", "partition gpu: 8 GPUs on a node are more than its 4")]),
        ({"cpus_per_task": 64}, [("cpus_per_task", "partition gpu: 64 CPUs on a node are more than its 32")]),
        ({"mem": "101G"}, [("mem", "partition gpu: 103424M on a node is more than its 100G")]),
        ({"qos": "debgu"}, [("qos", "the site has no quality of service `debgu`")] * 1
         + [("qos", "partition gpu doesn't take the quality of service `debgu`")]),
        ({"qos": "other"}, [("qos", "partition gpu doesn't take the quality of service `other`")]),
        ({"qos": "debug", "time": "01:00:00"},
         [("time", "quality of service debug: 01:00:00 is longer than its limit of 00:30:00")]),
        ({"mem_per_cpu": "1G"}, [("mem_per_cpu", "the site gives no memory by `mem_per_cpu`")]),
        ({"partition": "whole", "mem": "1G"}, [("mem", "the site gives no memory by `mem`")]),
        ({"partition": "whole", "gres": "gpu:2"}, [("gres", "the site gives no GPUs by `gres`")]),
        ({"partition": "whole", "gres": "shard:2", "gpus_per_node": 1}, []),
        ({"partition": "whole,any", "mem": "1G"}, []),
    ],
)  # fmt: skip
def test_limits_of_a_site(resources, expected):
    assert of_site(**resources) == expected


def test_a_site_without_facts_refuses_nothing():
    script = Script.model_validate(
        {"payload": "a", "resources": {"partition": "x", "qos": "y", "time": "9-00"}}
    )
    assert told(site_problems(script, Site(), lambda path: None)) == []


@pytest.mark.parametrize(
    ("launcher", "resources", "expected"),
    [
        ({"type": "torchrun", "nproc_per_node": 4}, {"gpus_per_node": 4}, []),
        ({"type": "torchrun", "nproc_per_node": 4}, {}, []),
        ({"type": "torchrun", "nproc_per_node": 4}, {"gpus_per_node": 2}, ["nproc_per_node"]),
        ({"type": "torchrun"}, {"ntasks_per_node": 1}, []),
        ({"type": "torchrun"}, {"ntasks_per_node": 2}, ["ntasks_per_node"]),
        ({"type": "torchrun"}, {"nodes": 2, "ntasks": 4}, ["ntasks"]),
        ({"type": "ray"}, {"ntasks_per_node": 2}, ["ntasks_per_node"]),
        ({"type": "srun"}, {"ntasks_per_node": 16}, []),
        ({"type": "bash"}, {"ntasks_per_node": 16}, []),
    ],
)
def test_launcher_and_resources(launcher, resources, expected):
    data = {"payload": "a", "assets": [{"key": "k"}], "launcher": launcher, "resources": resources}
    script = Script.model_validate(data)
    assert [problem.path[-1] for problem in script_problems(script, lambda path: None)] == expected


def test_a_thousand_scripts_are_checked_in_three_seconds(tmp_path: Path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "train.py").touch()
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "production.yaml").write_text("scheduler: slurm\nresources: {partition: gpu}\n")
    (tmp_path / "defs.yaml").write_text(
        "type: dagster_slurm_components.SlurmScriptComponent\nattributes: {include: [jobs/*.yaml], external: [d]}\n"
    )
    for number in range(1000):
        (tmp_path / "jobs" / f"{number}.yaml").write_text(
            f"payload: train.py\nargs: ['--epochs', '3']\nlauncher: {{type: torchrun, nproc_per_node: 2}}\n"
            f"resources: {{nodes: 2, mem: 8G, time: '00:30:00'}}\nassets: [{{key: models/{number}, deps: [d]}}]\n"
            f"profiles: {{local: {{resources: {{nodes: 1}}}}}}\n"
        )
    started = time.process_time()  # of this process: other work on the machine doesn't count
    report = check_project([tmp_path])
    spent = time.process_time() - started
    assert (report.scripts, report.files, report.problems) == (1000, 1002, ())
    assert spent < 3
