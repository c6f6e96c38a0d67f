"""What a payload inherits: the same from a laptop's process, from Slurm here, and from both over ssh."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from project_fixture import Project, failure_text
from waiting import PATIENCE, eventually

import slurm_testcluster as slurm

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "s3cr3t-4711",
    "DAGSTER_PG_PASSWORD": "s3cr3t-4712",
    "FAKE_SECRET": "s3cr3t-4713",
}
LOGIN = {"HOME", "LANG", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "SHELL", "USER"}
OURS = {"DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES", "PYTHONPATH", "PYTHONUNBUFFERED"}
SHELLS = {"OLDPWD", "PWD", "SHLVL", "_"}
SLURMS = {
    "CUDA_VISIBLE_DEVICES",
    "ENVIRONMENT",
    "GPU_DEVICE_ORDINAL",
    "HOSTNAME",
    "ROCR_VISIBLE_DEVICES",
    "TMPDIR",
}
MODULES = re.compile(r"BASH_ENV|BASH_FUNC_(ml|module)%%|LMOD_|MODULE")
"""How modules are found, where this machine has them."""
MPI = re.compile(r"HYDRA_|I_MPI_HYDRA_|(OMPI|PRTE)_MCA_plm_slurm_")
"""How MPI's own launchers are to start processes: newer Slurms (24.11) tell each batch job."""
LOOK = """
here=$1/$DAGSTER_SLURM_PROFILE
mkdir -p "$here"
mine=$(mktemp -d "$here/XXXXXX")
env -0 >"$mine/env"
umask >"$mine/umask"
ulimit -a >"$mine/limits"
locale >"$mine/locale"
mv "$mine"/* "$here"
rmdir "$mine"
"""
"""Ranks and elements look at once: what is seen comes from one of them, whole."""


def variables(folder: Path) -> dict[str, str]:
    """Return the environment that was seen."""
    pairs = (line.partition("=") for line in (folder / "env").read_text().split("\0") if line)
    return {name: value for name, _, value in pairs}


@pytest.fixture
def four_profiles(
    project: Project, cluster: slurm.Cluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    """Profiles for both hosts and both schedulers, and an orchestrator with secrets and habits of its own."""
    project.staging(cluster)
    staging = yaml.safe_load((project.root / "profiles" / "staging.yaml").read_text())
    for host in ("local", "ssh"):
        for scheduler in ("process", "slurm"):
            profile = {
                **staging,
                "scheduler": scheduler,
                "workdir": str(project.root / f"{host} {scheduler}"),
            }
            if host == "local":
                profile["host"] = {"type": "local"}
            project.profile(f"{host}-{scheduler}", yaml.safe_dump(profile))
    project.write("look.sh", LOOK)
    for name, value in {**SECRETS, "SLURM_TIME_FORMAT": "relative", "LANG": "C.UTF-8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.setenv("SLURM_CONF", str(cluster.folder / "etc" / "slurm.conf"))
    before = os.umask(0o027)
    yield project
    os.umask(before)


def look(project: Project, folder: Path, more: str = "") -> Path:
    """Write a script that looks around in an environment which adds nothing; return where what it saw will be."""
    (folder / "prefix" / "bin").mkdir(parents=True)
    where = f"args: ['{folder / 'seen'}'], environment: {{type: path, path: '{folder / 'prefix'}'}}"
    script = ", ".join(filter(None, ("payload: look.sh", where, "assets: [{key: looked}]", more)))
    project.scripts(f"scripts: [{{{script}}}]")
    return folder / "seen"


@pytest.mark.smoke
@pytest.mark.slurm
def test_a_payload_inherits_the_login_and_nothing_of_the_orchestrator(
    four_profiles: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    project, seen = four_profiles, look(four_profiles, tmp_path)
    script = tmp_path / "plain.sh"
    script.write_text(f"#!/bin/bash\nDAGSTER_SLURM_PROFILE=plain\n{LOOK}".replace("$1", str(seen)))
    plain = cluster.run(["sbatch", "--wait", "-o", "/dev/null", str(script)], timeout=PATIENCE)
    assert plain.returncode == 0
    for profile in ("local-process", "local-slurm", "ssh-process", "ssh-slurm"):
        result = project.run(profile, instance=instance)
        assert result.success, failure_text(result)
        found = variables(seen / profile)
        own = {name for name in found if name.startswith("DAGSTER_SLURM_")}
        slurms = {name for name in found if name.startswith("SLURM") or MPI.match(name)} | SLURMS
        slurms = slurms if "slurm" in profile else set()
        others = set(found) - own - slurms - LOGIN - OURS - SHELLS
        assert not [name for name in others if not MODULES.match(name)], profile
        assert not {"SLURM_TIME_FORMAT", "SLURM_JWT", "DAGSTER_SLURM_UMASK"} & set(found)
        assert not any(secret in (seen / profile / "env").read_text() for secret in SECRETS.values())
        if profile.endswith("slurm"):
            assert (seen / profile / "limits").read_text() == (seen / "plain" / "limits").read_text()
            job = result.get_asset_materialization_events()[0].materialization.metadata["job/id"].value
            kept = cluster.run(
                ["sacct", "--jobs", str(job), "--batch-script", "--env-vars"], check=False
            ).stdout
            assert not any(secret in kept for secret in SECRETS.values())
        if profile.startswith("local"):
            assert (seen / profile / "umask").read_text() == "0027\n"
            assert found["LANG"] == "C.UTF-8"
            assert "LC_ALL=\n" in (seen / profile / "locale").read_text()
    assert (
        (seen / "ssh-slurm" / "umask").read_text() == (seen / "ssh-process" / "umask").read_text() != "0077\n"
    )


@pytest.mark.slurm
def test_more_is_inherited_by_name_and_the_umask_is_the_users(
    four_profiles: Project, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    project, seen = four_profiles, look(four_profiles, tmp_path, 'export: [FAKE_SECRET], umask: "0002"')
    for profile in ("local-process", "local-slurm"):
        result = project.run(profile, instance=instance)
        assert result.success, failure_text(result)
        assert variables(seen / profile)["FAKE_SECRET"] == SECRETS["FAKE_SECRET"]
        assert (seen / profile / "umask").read_text() == "0002\n"
        folder = (
            result.get_asset_materialization_events()[0].materialization.metadata["job/run_directory"].value
        )
        modes = {path.stat().st_mode & 0o077 for path in Path(str(folder)).rglob("*")}
        assert modes == {0}, "our own files are the user's alone"


def test_a_variable_that_nobody_set_is_told_before_anything_runs(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")  # the login shell's own files say nothing
    project.scripts(
        """
        scripts:
          - {command: ["true"], export: [NOT_SET_ANYWHERE], assets: [{key: looked}]}
        """
    )
    result = project.run("local", instance=instance)
    assert not result.success
    text = "the variable NOT_SET_ANYWHERE, which `export` names, is not set here, nor by the login shell"
    assert text in failure_text(result)
    runs = project.root / ".dagster-slurm" / "runs"
    assert not list(runs.rglob("job.sh"))


@pytest.mark.slurm
def test_python_and_setup_of_the_host_are_there_in_jobs(
    four_profiles: Project, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    project, module = four_profiles, tmp_path / "a module" / "bin"
    module.mkdir(parents=True)
    (module / "python3.99").symlink_to(sys.executable)
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    (project.root / "defs").mkdir(exist_ok=True)
    project.write(
        "look.py",
        """
        import json, os, sys
        os.makedirs(sys.argv[1], exist_ok=True)
        with open(sys.argv[1] + "/" + os.environ["DAGSTER_SLURM_PROFILE"], "w") as file:
            json.dump([sys.executable, dict(os.environ)], file)
        """,
    )
    for profile, launcher in (("ssh-process", "bash"), ("ssh-slurm", "srun")):
        file = project.root / "profiles" / f"{profile}.yaml"
        content = yaml.safe_load(file.read_text())
        setup = [f'export PATH="$PATH:{module}" SEEN=here']
        content["host"] |= {"python": "python3.99", "setup": setup, "agent": False}
        file.write_text(yaml.safe_dump(content))
        project.scripts(
            f"""
            scripts:
              - payload: look.py
                args: ["{tmp_path / "seen"}"]
                launcher: {{type: {launcher}}}
                environment: {{type: path, path: "{prefix}"}}
                assets: [{{key: looked}}]
            """
        )
        result = project.run(profile, instance=instance)
        assert result.success, failure_text(result)
        program, found = json.loads((tmp_path / "seen" / profile).read_text())
        assert program == str(module / "python3.99")
        assert str(module) in found["PATH"].split(":")
        assert not {"SEEN", "DAGSTER_SLURM_HOST_PYTHON"} & set(found), "not all that a setup sets is a job's"


MARK = "of-the-orchestrator"
PYENV = ("PYENV_", "_PYENV_")
"""What a `python3` that is pyenv's sets when it starts a launcher."""
PLACES = ("local-process", "local-slurm", "ssh-process", "ssh-slurm")
RANGE = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}


@pytest.fixture
def marked(four_profiles: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The same, where the orchestrator has set what Python, environments and launchers listen to."""
    names = "CONDA_PREFIX MASTER_ADDR NCCL_IB_HCA OMP_PLACES PIP_CONFIG_FILE PMIX_X PYTHONPATH RAY_ADDRESS TORCH_HOME"
    for name in (
        *names.split(),
        "DAGSTER_RUN_ID",
        "DAGSTER_SLURM_X",
        "SLURM_X",
        "UV_INDEX_URL",
        "VIRTUAL_ENV",
    ):
        monkeypatch.setenv(name, f"/{MARK}")
    return four_profiles


def check_seen(folder: Path, *more: str) -> None:
    """Check what a payload saw, which may have variables that begin with ``more``."""
    found = variables(folder)
    assert not [name for name, value in found.items() if MARK in value or value in SECRETS.values()]
    known = LOGIN | OURS | SHELLS | SLURMS
    begin = ("DAGSTER_SLURM_", "DAGSTER_PIPES_", "SLURM", "SRUN_", *PYENV, *more)
    assert "DAGSTER_SLURM_LC_CTYPE" not in found
    others = {n for n in found if not (MODULES.match(n) or MPI.match(n) or n.startswith(begin))}
    assert others <= known


@pytest.mark.slurm
@pytest.mark.parametrize("profile", PLACES)
def test_so_it_is_however_the_job_came_about(
    marked: Project, instance: dg.DagsterInstance, tmp_path: Path, profile: str
) -> None:
    seen, prefix = tmp_path / "seen", tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    days = ", partitions_def: {type: static, partition_keys: [a, b]}"
    rows = {
        "ranks": ("launcher: {type: srun}", ""),
        "left": ("leave: true", ""),
        "array": ("array: {max_parallel: 2}", days),
    }
    listed = [
        f"- {{payload: look.sh, args: ['{seen / key}'], {more}, name: {key}, assets: [{{key: {key}{parts}}}]}}"
        for key, (more, parts) in rows.items()
    ]
    environment = f"defaults: {{environment: {{type: path, path: '{prefix}'}}}}\n"
    marked.scripts(environment + "scripts:\n" + "\n".join(f"  {row}" for row in listed))
    (marked.defs.parent / "python.py").write_text(
        "import dagster as dg\n"
        "from dagster_slurm_components import ComputeResource, PathEnvironment\n"
        "@dg.asset\n"
        "def python(context: dg.AssetExecutionContext, compute: ComputeResource):\n"
        f"    done = compute.run(context=context, payload_path='work/look.sh', args=['{seen / 'python'}'],\n"
        f"        environment=PathEnvironment(path='{prefix}'))\n"
        "    yield from done.get_results()\n"
        "defs = dg.Definitions(assets=[python], resources={'compute': ComputeResource()})\n"
    )
    for select, options in ((["ranks", "left", "python"], {}), (["array"], {"tags": RANGE})):
        result = marked.run(profile, instance=instance, select=select, **options)
        assert result.success, failure_text(result)
    eventually((seen / "left" / profile / "locale").exists, "the job that was left")
    for key in (*rows, "python"):
        check_seen(seen / key / profile)


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.parametrize("profile", PLACES[:2])
def test_so_it_is_with_frameworks(
    marked: Project,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    profile: str,
    torch_venv: Path,
    ray_venv: Path,
) -> None:
    marked.write(
        "look.py",
        """
        import os, subprocess, sys
        subprocess.run(["bash", os.path.join(os.path.dirname(__file__), "look.sh"), sys.argv[1]], check=True)
        """,
    )
    rows = {"torchrun": torch_venv, "ray": ray_venv}
    listed = [
        f"- {{payload: look.py, files: [look.sh], args: ['{tmp_path / key}'], launcher: {{type: {key}}}, name: {key}, "
        f"environment: {{type: path, path: '{venv}'}}, assets: [{{key: {key}}}], "
        "resources: {cpus_per_task: 2, mem: 2G}}"
        for key, venv in rows.items()
    ]
    marked.scripts("scripts:\n" + "\n".join(f"  {row}" for row in listed))
    result = marked.run(profile, instance=instance)
    assert result.success, failure_text(result)
    ranks = ("GROUP_", "LOCAL_", "MASTER_", "OMP_NUM_THREADS", "RANK", "ROLE_", "TORCH", "WORLD_SIZE")
    check_seen(tmp_path / "torchrun" / profile, *ranks, "VIRTUAL_ENV")
    check_seen(tmp_path / "ray" / profile, "RAY_", "VIRTUAL_ENV")
