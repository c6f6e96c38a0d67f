"""Containers: what is sent, what is checked, and the command line that a runtime receives.

No container runtime is at hand in the tests: a script of its name writes down how it was called, and runs the payload.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from package_fixture import request_for

from dagster_slurm_components.environments.plan import Provided, plan_environment
from dagster_slurm_components.environments.provide import is_content, provide
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.errors import DagsterSlurmError, EnvironmentFailedError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.jobs.bundle import bundle
from dagster_slurm_components.jobs.job_spec import job_spec
from dagster_slurm_components.jobs.model import JobIdentity
from dagster_slurm_components.spec.environments import ContainerEnvironment
from dagster_slurm_components.spec.hosts import LocalHost
from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.profiles import load_profile
from dagster_slurm_components.spec.resolve import resolve_script

pytestmark = pytest.mark.usefixtures("own_cache")

RUNTIME = """#!/bin/bash
printf '%s\\n' "${0##*/}" "$@" > "$CALLED"
while [ "$1" != "$IMAGE" ] && [ "$1" != --stop ]; do shift; done
shift
exec "$@"
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Satellite(InProcessHost()), str(tmp_path / "work dir"), "staging")


def sent(tmp_path: Path, store: Store, **options: Any) -> tuple[ContainerEnvironment, Provided]:
    (tmp_path / "image.sif").write_bytes(b"not really an image")
    environment = ContainerEnvironment(image="image.sif", **options)
    return environment, provide(request_for(environment, tmp_path), store)


def run(
    tmp_path: Path, environment: ContainerEnvironment, provided: Provided | None, image: str, **script: Any
) -> Any:
    """Run a payload in a job; return the finished process and how the runtime was called."""
    (tmp_path / "hello world.py").write_text("import sys, os; print('payload', sys.argv[1:], os.getcwd())\n")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name in ("apptainer", "singularity"):
        (bin_folder / name).write_text(RUNTIME)
        (bin_folder / name).chmod(0o755)
    (tmp_path / "pyproject.toml").write_text("")
    layer = {
        "payload": "hello world.py",
        "args": ["a b", "$(c)"],
        "environment": environment.explicit(),
        **script,
    }
    profile = load_profile("local", start=tmp_path)
    resolved = resolve_script(
        profile=profile, defaults=None, script=Layer("test", layer, lambda path: None), folder=tmp_path
    )
    activation = plan_environment(environment, LocalHost(), provided)
    spec = job_spec(resolved, JobIdentity("run", "step"), activation=activation)
    folder = tmp_path / "run"
    folder.mkdir()
    subprocess.run(["tar", "-xz", "-C", str(folder)], input=bundle(spec, "#!/bin/bash\n"), check=True)
    called = tmp_path / "called"
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "CALLED": str(called), "IMAGE": image}
    done = subprocess.run(
        ["bash", str(folder / "job.sh"), str(folder)], env=env, capture_output=True, text=True, check=False
    )
    return done, called.read_text().splitlines() if called.exists() else None


def test_an_image_of_this_machine_is_sent_once_and_run(tmp_path: Path, store: Store):
    environment, provided = sent(
        tmp_path, store, bind=["/data:/data:ro", "/scratch"], gpu="nvidia", verify="full"
    )
    image = f"{provided.folder}/image.sif"
    assert Path(image).read_bytes() == b"not really an image"
    assert provided.sent == len(b"not really an image")
    assert provide(request_for(environment, tmp_path), store).state == "ready"
    done, called = run(tmp_path, environment, provided, image)
    payload = f"{tmp_path}/run/payload"
    assert (done.returncode, done.stdout) == (0, f"payload ['a b', '$(c)'] {payload}\n"), done.stderr
    options = ["--nv", "--bind", "/data:/data:ro", "--bind", "/scratch"]
    inside = [image, "python3", "hello world.py", "a b", "$(c)"]
    assert called == ["apptainer", "exec", "--bind", f"{tmp_path}/run", "--pwd", payload, *options, *inside]


def test_a_spoilt_image_stops_the_job(tmp_path: Path, store: Store):
    environment, provided = sent(tmp_path, store, verify="full")
    image = Path(provided.folder, "image.sif")
    image.unlink()
    image.write_bytes(b"another image")
    assert list(store.verify().values()) == [("image.sif has another content than was published",)]
    done, called = run(tmp_path, environment, provided, str(image))
    assert (done.returncode, called) == (96, None)
    assert "has another content than the one that was sent" in done.stderr


def test_images_of_the_host_and_references_are_used_as_they_are(tmp_path: Path):
    reference = ContainerEnvironment(
        image="docker://python:3.12", runtime="singularity", python="/usr/bin/env", options=["--cleanenv"]
    )
    assert not is_content(reference)
    assert not is_content(ContainerEnvironment(image="/shared/x.sif"))
    assert is_content(ContainerEnvironment(image="x.sif"))
    done, called = run(
        tmp_path, reference, None, "docker://python:3.12", command=["echo", "hi"], payload=None
    )
    assert (done.returncode, done.stdout) == (0, "hi a b $(c)\n")
    assert called is not None
    assert called[0] == "singularity"
    assert called[-6:] == ["--cleanenv", "docker://python:3.12", "echo", "hi", "a b", "$(c)"]


def test_pyxis_is_srun_with_both_sides_of_each_mount():
    environment = ContainerEnvironment(image="nvcr.io://x", runtime="pyxis", bind=["/data", "/a:/b:ro"])
    activation = plan_environment(environment, LocalHost())
    assert activation.wrapper[2:] == (
        "pyxis",
        "nvcr.io://x",
        "--container-mounts=/data:/data",
        "--container-mounts=/a:/b:ro",
        "--",
    )


def test_a_missing_image_and_launchers_that_can_t_are_told(tmp_path: Path, store: Store):
    with pytest.raises(EnvironmentFailedError, match="there is no such image"):
        provide(request_for(ContainerEnvironment(image="none.sif"), tmp_path), store)
    missing = ContainerEnvironment(image="/no/such.sif")
    done, _ = run(tmp_path, missing, None, "/no/such.sif")
    assert done.returncode == 96
    assert "the image /no/such.sif can't be read" in done.stderr
    with pytest.raises(DagsterSlurmError, match="launcher `torchrun` can't start payloads in this container"):
        run(tmp_path, missing, None, "", launcher={"type": "torchrun"})
