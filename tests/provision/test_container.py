"""Containers: what is sent, what is checked, and the command line that a runtime receives.

No container runtime is at hand here: a script of its name writes down how it was called, and runs the payload. What
real ones do is in tests/containers.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import tarfile
from dataclasses import replace
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
from dagster_slurm_components.launchers.base import LaunchContext
from dagster_slurm_components.launchers.plans import plan
from dagster_slurm_components.spec.environments import ContainerEnvironment
from dagster_slurm_components.spec.hosts import LocalHost
from dagster_slurm_components.spec.launchers import LAUNCHERS
from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.profiles import load_profile
from dagster_slurm_components.spec.resolve import ScriptEntry, resolve_script
from dagster_slurm_components.spec.resources import Resources

pytestmark = pytest.mark.usefixtures("own_cache")

# As images do, it has its own mind of some variables.
RUNTIME = """#!/bin/bash
if [ "$1" = --help ]; then
    echo "$HELP"
    exit
fi
printf '%s\\n' "${0##*/}" "$@" > "$CALLED"
if [ "$1" = pull ]; then
    echo "cache $APPTAINER_CACHEDIR" >> "$CALLED"
    cp "${5:-/dev/null}" "$3"
    echo "made of $4" >> "$3"
    exit
fi
export GREETING=image LANG=image SLURM_PROCID=99 ONLY_IMAGE=image PYTHONPATH=/image/lib
while [ "$1" != sh ]; do shift; done
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
    tmp_path: Path,
    environment: ContainerEnvironment,
    provided: Provided | None = None,
    scheduler: str = "process",
    runtime: str = RUNTIME,
    folder: str = "run",
    inputs: str = "",
    plugins: tuple[str, ...] = ("--container-image=...", "--environment=..."),
    **script: Any,
) -> Any:
    """Run a payload in a job; return the finished process and how the runtime was called."""
    (tmp_path / "hello world.py").write_text("import sys, os; print('payload', sys.argv[1:], os.getcwd())\n")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name in ("apptainer", "singularity", "srun"):
        (bin_folder / name).write_text(runtime)
        (bin_folder / name).chmod(0o755)
    (tmp_path / "pyproject.toml").write_text("")
    layer = {
        "payload": "hello world.py",
        "args": ["a b", "$(c)"],
        "environment": environment.explicit(),
        **script,
    }
    (tmp_path / "profiles").mkdir(exist_ok=True)
    (tmp_path / "profiles" / "local.yaml").write_text(f"host: {{type: local}}\nscheduler: {scheduler}\n")
    profile = load_profile("local", start=tmp_path)
    resolved = resolve_script(ScriptEntry(Layer("test", layer, lambda path: None), None, tmp_path), profile)
    activation = plan_environment(environment, LocalHost(), provided)
    if inputs:
        activation = replace(activation, files={**activation.files, "inputs.paths": inputs})
    spec = job_spec(resolved, JobIdentity("run", "step"), activation=activation)
    target = tmp_path / folder
    target.mkdir()
    subprocess.run(["tar", "-xz", "-C", str(target)], input=bundle(spec, "#!/bin/bash\n"), check=True)
    called = tmp_path / "called"
    env = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "CALLED": str(called),
        "LANG": "C.UTF-8",
    }
    env = {name: value for name, value in env.items() if name != "TMPDIR"}
    if scheduler == "slurm":
        env.update(SLURMD_NODENAME="node7", SLURM_CPUS_ON_NODE="3", HELP=" ".join(plugins))
    done = subprocess.run(
        ["bash", str(target / "job.sh"), str(target)], env=env, capture_output=True, text=True, check=False
    )
    return done, called.read_text().splitlines() if called.exists() else None


def inside(tmp_path: Path) -> list[str]:
    """Return what each command inside begins and ends with."""
    first = ["sh", f"{tmp_path}/run/environment/inside_container.sh"]
    return [*first, "python3", "hello world.py", "a b", "$(c)"]


def test_an_image_of_this_machine_is_sent_once_and_run(tmp_path: Path, store: Store):
    environment, provided = sent(
        tmp_path, store, bind=["/data:/data:ro", "/scratch"], gpu="nvidia", verify="full"
    )
    image = f"{provided.folder}/image.sif"
    assert Path(image).read_bytes() == b"not really an image"
    assert provided.sent == len(b"not really an image")
    assert provide(request_for(environment, tmp_path), store).state == "ready"
    done, called = run(tmp_path, environment, provided)
    payload = f"{tmp_path}/run/payload"
    assert (done.returncode, done.stdout) == (0, f"payload ['a b', '$(c)'] {payload}\n"), done.stderr
    binds = [
        "--bind",
        f"{tmp_path}/run:{tmp_path}/run",
        "--bind",
        "/data:/data:ro",
        "--bind",
        "/scratch:/scratch",
    ]
    start = ["apptainer", "--quiet", "exec", "--pwd", payload, *binds, "--nv", image]
    assert called == [*start, *inside(tmp_path)]


def test_the_copy_on_the_node_is_seen_inside(tmp_path: Path, store: Store):
    environment, provided = sent(tmp_path, store)
    (tmp_path / "disk").mkdir()
    done, called = run(tmp_path, environment, provided, stage=f"{tmp_path}/disk")
    assert done.returncode == 0, done.stderr
    assert called is not None
    node, work = called[called.index("--pwd") + 1].rsplit("/", 1)
    assert (Path(node).parent, work) == (tmp_path / "disk", "payload")
    assert called[called.index("--bind") + 2 :][:2] == ["--bind", f"{node}:{node}"]
    assert done.stdout == f"payload ['a b', '$(c)'] {node}/payload\n"


def test_inputs_that_lie_elsewhere_are_seen_inside(tmp_path: Path, store: Store):
    environment, provided = sent(tmp_path, store)
    paths = ["/home/me/a table.csv", f"{tmp_path}/run/data/trees/key/zoo", "/data/a:b"]
    done, called = run(tmp_path, environment, provided, inputs="".join(f"{path}\0" for path in paths))
    assert done.returncode == 0, done.stderr
    binds = [value for word, value in itertools.pairwise(called) if word == "--bind"]
    assert binds == [f"{tmp_path}/run:{tmp_path}/run", "/home/me/a table.csv:/home/me/a table.csv:ro"]


def test_a_spoilt_image_stops_the_job(tmp_path: Path, store: Store):
    environment, provided = sent(tmp_path, store, verify="full")
    image = Path(provided.folder, "image.sif")
    image.unlink()
    image.write_bytes(b"another image")
    assert list(store.verify().values()) == [("image.sif has another content than was published",)]
    done, called = run(tmp_path, environment, provided)
    assert (done.returncode, called) == (96, None)
    assert "has another content than the one that was sent" in done.stderr


def test_an_image_of_the_host_is_used_as_it_is(tmp_path: Path):
    image = tmp_path / "x.sif"
    image.touch()
    environment = ContainerEnvironment(
        image=str(image), runtime="singularity", gpu="amd", options=["--no-home"]
    )
    assert not is_content(environment)
    done, called = run(tmp_path, environment, command=["echo", "hi"], payload=None)
    assert (done.returncode, done.stdout) == (0, "hi a b $(c)\n")
    assert called[0] == "singularity"
    assert called[called.index("--rocm") :][:3] == ["--rocm", "--no-home", str(image)]


def test_the_users_variables_win_over_the_images(tmp_path: Path):
    image = tmp_path / "x.sif"
    image.touch()
    code = "import os; print([os.environ.get(name) for name in %r])"
    names = ["GREETING", "LANG", "ONLY_IMAGE", "PYTHONPATH", "DAGSTER_SLURM_PYTHON", "DAGSTER_SLURM_OUTSIDE"]
    mine = "it's\n$(mine) \\"
    done, _ = run(
        tmp_path,
        ContainerEnvironment(image=str(image), python="/usr/bin/env"),
        command=["python3", "-c", code % names],
        args=[],
        payload=None,
        env={"GREETING": mine},
        export=["LANG"],
    )
    lib = f"{tmp_path}/run/lib:/image/lib"
    assert done.stdout == f"{[mine, 'C.UTF-8', 'image', lib, '/usr/bin/env', None]}\n", done.stderr


def test_options_that_keep_the_jobs_variables_out_are_told(tmp_path: Path):
    """Apptainer's --cleanenv; here the runtime does so by itself."""
    image = tmp_path / "x.sif"
    image.touch()
    forgets = 'while [ "$1" != sh ]; do shift; done\nexec env -i "$@"\n'
    done, _ = run(tmp_path, ContainerEnvironment(image=str(image)), runtime=f"#!/bin/bash\n{forgets}")
    assert done.returncode == 96
    assert "the job's variables are kept out of the container: leave --cleanenv" in done.stderr


def test_pyxis_is_a_step_of_its_own_on_this_node_or_the_ranks_step(tmp_path: Path):
    image = tmp_path / "x.sqsh"
    image.touch()
    environment = ContainerEnvironment(
        image=str(image), runtime="pyxis", bind=["/a:/b:ro"], options=["--container-remap-root"]
    )
    (tmp_path / "one").mkdir()
    done, called = run(tmp_path / "one", environment, scheduler="slurm")
    assert done.returncode == 0, done.stderr
    here = tmp_path / "one" / "run"
    step = "--overlap --nodes=1 --ntasks=1 --ntasks-per-node=1 --nodelist=node7 --cpu-bind=none --export=ALL"
    container = [f"--container-workdir={here}/payload", f"--container-mounts={here}:{here},/a:/b:ro"]
    container += [f"--container-image={image}", "--container-remap-root"]
    assert called == ["srun", *step.split(), "--cpus-per-task=3", *container, *inside(tmp_path / "one")]
    (tmp_path / "ranks").mkdir()
    done, called = run(
        tmp_path / "ranks", environment, scheduler="slurm", launcher={"type": "srun"}, resources={"ntasks": 2}
    )
    assert done.returncode == 0, done.stderr
    assert called[:4] == ["srun", "--kill-on-bad-exit=1", "--export=ALL", "--ntasks=2"]
    assert f"--container-image={image}" in called
    rank = called[called.index("python3") :]
    assert rank[4].endswith("/launch/rank.py")
    assert rank[-5:] == ["--", "python3", "hello world.py", "a b", "$(c)"]


def test_an_environment_file_of_cscs_is_built_upon(tmp_path: Path):
    environment = ContainerEnvironment(edf='py"torch', bind=["/data", "/a:/b:ro"])
    done, called = run(tmp_path, environment, scheduler="slurm")
    assert done.returncode == 0, done.stderr
    assert called[9] == "--environment={run}/environment/container.toml".format(run=tmp_path / "run")
    assert (
        (tmp_path / "run" / "environment" / "container.toml").read_text()
        == """\
base_environment = "py\\"torch"
mounts = ["${DAGSTER_SLURM_WORKDIR}:${DAGSTER_SLURM_WORKDIR}", "/data:/data", "/a:/b:ro"]
workdir = "${PWD}"
"""
    )


def test_containers_of_a_plugin_of_srun_need_slurm(tmp_path: Path):
    with pytest.raises(DagsterSlurmError, match="this profile's scheduler is `process`"):
        run(tmp_path, ContainerEnvironment(edf="pytorch"))
    done, _ = run(tmp_path, ContainerEnvironment(edf="pytorch"), scheduler="slurm", plugins=())
    assert done.returncode == 96
    assert "srun has no --environment here" in done.stderr


@pytest.mark.parametrize(
    ("launcher", "outside", "inside"),
    [
        ({"type": "torchrun", "nproc_per_node": 2}, ["python3", "payload.py"], True),
        ({"type": "ray"}, ["bash", "../environment/in_container.sh", "python3", "payload.py"], True),
        ({"type": "srun"}, ["bash", "../environment/in_container.sh", "python3", "payload.py"], False),
        ({"type": "bash"}, ["bash", "../environment/in_container.sh", "python3", "payload.py"], False),
    ],
)
def test_launchers_are_told_what_runs_inside(launcher: dict[str, Any], outside: list[str], inside: bool):
    context = LaunchContext(Resources(), "slurm", ("bash", "../environment/in_container.sh"), "python3")
    made = plan(LAUNCHERS.validate(launcher), ("@python", "payload.py"), context)
    assert list(made.payload) == outside
    told = ["--inside=bash", "--inside=../environment/in_container.sh", "--python=python3"]
    assert (told == list(made.options[-3:])) == inside


def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a runtime on this machine's PATH; return where it writes how it was called."""
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(RUNTIME)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLED", str(tmp_path / "called"))
    return tmp_path / "called"


def test_a_reference_is_fetched_once_to_a_file_that_can_only_be_read(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
):
    environment = ContainerEnvironment(image="docker://python:3.12", verify="full")
    request = request_for(environment, tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(
        EnvironmentFailedError, match="there is no apptainer on this host, which is to fetch docker:"
    ):
        provide(request, store)
    called = fakes(tmp_path, monkeypatch)
    provided = provide(request, store)
    image = Path(provided.folder, "image.sif")
    assert image.read_text() == "made of docker://python:3.12\n"
    assert image.stat().st_mode & 0o777 == 0o400
    told = called.read_text().splitlines()
    assert told[:3] == ["apptainer", "pull", "--force"]
    assert told[4:] == ["docker://python:3.12", f"cache {store.workdir}/store/cache/images"]
    called.unlink()
    assert provide(request, store).state == "ready"
    assert not called.exists()
    done, _ = run(tmp_path, environment, provided)
    assert done.returncode == 0, done.stderr
    image.chmod(0o600)
    image.write_text("another image")
    assert list(store.verify().values()) == [("image.sif has another content than was published",)]
    done, _ = run(tmp_path, environment, provided, folder="again")
    assert (done.returncode, "has another content" in done.stderr) == (96, True)


@pytest.mark.parametrize(
    ("marker", "kind"), [("manifest.json", "docker-archive"), ("index.json", "oci-archive")]
)
def test_a_saved_archive_is_sent_and_made_an_image_there(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, marker: str, kind: str
):
    called = fakes(tmp_path, monkeypatch)
    (tmp_path / marker).write_text("{}")
    with tarfile.open(tmp_path / "saved.tar", "w") as archive:
        archive.add(tmp_path / marker, marker)
    provided = provide(request_for(ContainerEnvironment(image="saved.tar"), tmp_path), store)
    assert called.read_text().splitlines()[4] == f"{kind}:image.tar"
    assert [file.name for file in Path(provided.folder).iterdir() if file.suffix] == ["image.sif"]


def test_a_missing_image_is_told(tmp_path: Path, store: Store):
    with pytest.raises(EnvironmentFailedError, match="there is no such image"):
        provide(request_for(ContainerEnvironment(image="none.sif"), tmp_path), store)
    done, _ = run(tmp_path, ContainerEnvironment(image="/no/such.sif"))
    assert done.returncode == 96
    assert "the image /no/such.sif can't be read" in done.stderr


def test_a_node_on_which_the_runtime_can_not_work_is_told(tmp_path: Path):
    """Without user namespaces (here: an `unshare` that fails) it depends on how the runtime was installed."""
    image = tmp_path / "x.sif"
    image.touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "unshare").chmod(0o755)
    environment = ContainerEnvironment(image=str(image))
    done, _ = run(tmp_path, environment)
    assert done.returncode == 0, done.stderr
    refuses = "#!/bin/sh\necho INFO >&2\necho FATAL: no namespaces >&2\nexit 255\n"
    done, _ = run(tmp_path, environment, runtime=refuses, folder="again")
    assert done.returncode == 96
    assert f"apptainer can't run {image} here: user namespaces are switched off" in done.stderr
    assert "It said: FATAL: no namespaces" in done.stderr
