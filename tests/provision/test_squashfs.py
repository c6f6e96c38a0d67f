"""Environments as one file, by the real mksquashfs and squashfuse: made, mounted for a job, unmounted after it."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from package_fixture import make_index, make_project, sys_executable, use_own_cache, uv_request
from project_fixture import Project
from waiting import PATIENCE

from dagster_slurm_components.environments.plan import Provided, plan_environment
from dagster_slurm_components.environments.provide import provide
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.errors import EnvironmentFailedError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.jobs.bundle import bundle
from dagster_slurm_components.jobs.model import JobIdentity, JobSpec
from dagster_slurm_components.launchers.base import PYTHON, LaunchContext
from dagster_slurm_components.launchers.plans import plan
from dagster_slurm_components.spec.environments import UvEnvironment
from dagster_slurm_components.spec.hosts import LocalHost
from dagster_slurm_components.spec.launchers import BashLauncher
from dagster_slurm_components.spec.resources import Resources
from slurm_testcluster import Cluster


def why_not() -> str | None:
    """Return why nothing can be mounted here."""
    lacking = [name for name in ("mksquashfs", "squashfuse", "fusermount3") if shutil.which(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not found (apt-get install squashfs-tools squashfuse fuse3)"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse: {error.strerror}"
    return None


REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
PAYLOAD = (
    "import importlib.metadata as m, alpha.part, sys;"
    "print('payload', sorted((d.name, d.version) for d in m.distributions()), sys.prefix)"
)
PATIENT = """
import signal, sys, time
def end(number, frame):
    time.sleep(0.2)
    import alpha.part
    print("payload ended", alpha.part.VALUE)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open("begun", "w").close()
while True:
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Provided, Path]]:
    """An environment with alpha 1.0, as an image."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_own_cache(folder, monkeypatch)
        project = make_project(folder / "study", make_index(folder / "index"), "alpha==1.0")
        store = Store(Satellite(InProcessHost()), str(folder / "work dir"), "local")
        yield store, provide(uv_request(project, form="squashfs"), store), project


@pytest.fixture(autouse=True)
def unmounted(tmp_path: Path) -> Iterator[None]:
    """Whatever becomes of a test, what its jobs mounted goes."""
    yield
    for file in tmp_path.glob("*/environment/mounted"):
        folder = file.read_text().strip()
        if os.path.lexists(folder):
            subprocess.run(["fusermount3", "-uz", folder], check=False, capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)


def begin(provided: Provided, folder: Path, code: str = PAYLOAD, **env: str) -> subprocess.Popen[str]:
    """Start a job whose environment this is."""
    environment = UvEnvironment(project="unused", form="squashfs", verify="full")
    activation = plan_environment(environment, LocalHost(), provided)
    launch = plan(BashLauncher(), (PYTHON, "-c", code), LaunchContext(Resources(), "process"))
    spec = JobSpec(JobIdentity("run", "step"), launch, activation)
    with tarfile.open(fileobj=io.BytesIO(bundle(spec, "#!/bin/bash\n"))) as archive:
        archive.extractall(folder, filter="data")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SLURM"))}
    return subprocess.Popen(
        ["/bin/bash", str(folder / "job.sh"), str(folder)],
        env=kept | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def mounted(folder: Path) -> str:
    return (folder / "environment" / "mounted").read_text().strip()


def is_mount(path: str) -> bool:
    return f" {path} " in Path("/proc/mounts").read_text()


def wait_for(found: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_host_has_one_file_instead_of_all(made: tuple[Store, Provided, Path]):
    store, provided, project = made
    assert sorted(path.name for path in Path(provided.folder).iterdir()) == [
        ".ready",
        ".used",
        "environment.squashfs",
    ]
    assert not (Path(store.workdir) / "store" / "cache").exists()
    assert provided.manifest["inodes"] == 2
    assert provide(uv_request(project, form="squashfs"), store).state == "ready"


def test_the_payload_runs_in_it_and_nothing_stays_mounted(made: tuple[Store, Provided, Path], tmp_path: Path):
    job = begin(made[1], tmp_path / "run dir")
    out, err = job.communicate(timeout=PATIENCE)
    folder = mounted(tmp_path / "run dir")
    assert (job.returncode, out) == (0, f"payload [('alpha', '1.0')] {folder}\n"), err
    assert not is_mount(folder)
    assert not Path(folder).exists()


def test_a_payload_that_is_asked_to_end_still_has_its_software(
    made: tuple[Store, Provided, Path], tmp_path: Path
):
    job = begin(made[1], tmp_path / "run", PATIENT)
    wait_for((tmp_path / "run" / "payload" / "begun").exists, job)
    folder = mounted(tmp_path / "run")
    assert is_mount(folder)
    os.killpg(job.pid, signal.SIGTERM)
    out, err = job.communicate(timeout=PATIENCE)
    assert out == "payload ended 1\n", err
    assert not is_mount(folder)


def test_what_a_killed_job_left_mounted_goes_with_the_next_one(
    made: tuple[Store, Provided, Path], tmp_path: Path
):
    job = begin(made[1], tmp_path / "killed", PATIENT)
    wait_for((tmp_path / "killed" / "payload" / "begun").exists, job)
    folder = mounted(tmp_path / "killed")
    group = int((tmp_path / "killed" / "status").read_text().partition("pid=")[2].split()[0])
    for pid in processes_of(group, folder):
        os.kill(pid, signal.SIGKILL)
    job.communicate(timeout=PATIENCE)
    assert is_mount(folder)  # and nobody behind it
    following = begin(made[1], tmp_path / "next")
    _, err = following.communicate(timeout=PATIENCE)
    assert following.returncode == 0, err
    assert not is_mount(folder)
    assert not os.path.lexists(folder)


def processes_of(leader: int, folder: str) -> list[int]:
    """Return a job's processes and the one behind its mount, as Slurm kills them all."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
                argv = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            except OSError:
                continue
            if session == leader or (folder in argv and "squashfuse" in argv[0]):
                found.append(int(entry.name))
    return found


def test_an_image_with_other_content_is_noticed(made: tuple[Store, Provided, Path], tmp_path: Path):
    store, provided, _ = made
    copied = tmp_path / "envs" / Path(provided.folder).name
    shutil.copytree(provided.folder, copied)
    image = copied / "environment.squashfs"
    unpacked = tmp_path / "unpacked"
    subprocess.run(["unsquashfs", "-q", "-n", "-d", unpacked, image], check=True, stdout=subprocess.DEVNULL)
    packages = next(unpacked.glob("lib/python*/site-packages"))
    shutil.copytree(packages / "alpha-1.0.dist-info", packages / "extra-9.dist-info")
    image.unlink()
    subprocess.run(["mksquashfs", unpacked, image, "-quiet", "-no-progress"], check=True)
    job = begin(Provided(str(copied), provided.manifest, "ready"), tmp_path / "run")
    out, err = job.communicate(timeout=PATIENCE)
    assert (job.returncode, out) == (96, "")
    assert "not wanted: extra 9" in err
    assert not is_mount(mounted(tmp_path / "run"))
    spoilt = Store(store.satellite, str(tmp_path), "local")
    assert list(spoilt.verify().values()) == [
        ("environment.squashfs has another content than was published",)
    ]
    assert list(store.verify().values()) == [()]


def bare_path(tmp_path: Path, *without: str) -> str:
    """Return a PATH with the programs of /usr/bin and /bin but these."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for place in (Path("/usr/bin"), Path("/bin")):
        for program in place.iterdir():
            if program.name not in without and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
    return str(folder)


def test_a_node_without_squashfuse_says_so(made: tuple[Store, Provided, Path], tmp_path: Path):
    path = bare_path(tmp_path, "squashfuse", "squashfuse_ll")
    job = begin(made[1], tmp_path / "run", PATH=path)
    out, err = job.communicate(timeout=PATIENCE)
    assert (job.returncode, out) == (96, "")
    assert "this node has no squashfuse" in err
    assert "`form` to `folder`" in err


def test_a_host_without_mksquashfs_says_so(
    made: tuple[Store, Provided, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", bare_path(tmp_path, "mksquashfs"))
    store, _, project = made
    lacking = Store(store.satellite, str(tmp_path / "elsewhere"), "local")
    with pytest.raises(EnvironmentFailedError, match="needs the program mksquashfs") as caught:
        provide(uv_request(project, form="squashfs"), lacking)
    assert caught.value.code == "no_squashfs"
    assert [path.name for path in (tmp_path / "elsewhere" / "envs").glob("[!.]*")] == []


REPORT = """\
import sys
from pathlib import Path
import alpha

Path("rank-" + __import__("os").environ["SLURM_PROCID"]).write_text(alpha.VERSION + " " + sys.prefix)
"""


@pytest.mark.slurm
@pytest.mark.ssh
@pytest.mark.skipif(os.getuid() != 0, reason="mounting inside the test cluster's own namespaces takes root")
def test_each_node_of_a_slurm_job_has_it(
    project: Project,
    cluster: Cluster,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    use_own_cache(tmp_path, monkeypatch)
    study = make_project(tmp_path / "study", make_index(tmp_path / "index"), "alpha==1.0")
    project.staging(cluster)
    project.write("report.py", REPORT)
    environment = f"{{type: uv, project: '{study}', python: '{sys_executable()}', form: squashfs}}"
    project.scripts(f"""
        scripts:
          - payload: report.py
            environment: {environment}
            launcher: {{type: srun}}
            resources: {{nodes: 2, ntasks_per_node: 1}}
            assets: [{{key: report}}]
    """)
    result = project.run("staging", instance=instance)
    assert result.success
    (run,) = (project.root / "cluster work" / "runs").glob("*/*/0")
    folder = mounted(run)
    said = [(run / "payload" / f"rank-{rank}").read_text() for rank in range(2)]
    assert said == [f"1.0 {folder}"] * 2
    assert not is_mount(folder)
