"""The environment is compared with the lock in the job itself, before the payload boots."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from package_fixture import make_index, make_project, use_own_cache, uv_request

from dagster_slurm_components.environments.plan import Provided, plan_environment
from dagster_slurm_components.environments.provide import provide
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.jobs.bundle import bundle
from dagster_slurm_components.jobs.model import JobIdentity, JobSpec
from dagster_slurm_components.launchers.base import PYTHON, LaunchContext
from dagster_slurm_components.launchers.plans import plan
from dagster_slurm_components.spec.environments import (
    CurrentEnvironment,
    UvEnvironment,
)
from dagster_slurm_components.spec.hosts import LocalHost, SshHost
from dagster_slurm_components.spec.launchers import BashLauncher
from dagster_slurm_components.spec.resources import Resources

PAYLOAD = (
    "import importlib.metadata as m; print('payload', sorted((d.name, d.version) for d in m.distributions()))"
)


@dataclass
class Job:
    folder: Path
    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provided]:
    """An environment with alpha 1.0 and beta 2.0."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_own_cache(folder, monkeypatch)
        project = make_project(folder / "study", make_index(folder / "index"), "alpha==1.0", "beta")
        yield provide(uv_request(project), Store(Satellite(InProcessHost()), str(folder / "work"), "local"))


@pytest.fixture
def made(original: Provided, tmp_path: Path) -> Provided:
    """A copy of it that a test may spoil."""
    folder = tmp_path / "envs" / Path(original.folder).name
    shutil.copytree(original.folder, folder, symlinks=True)
    return Provided(str(folder), original.manifest, "ready")


def run(
    made: Provided,
    tmp_path: Path,
    verify: str = "names",
    *,
    payload: str = PAYLOAD,
    own: Mapping[str, str] | None = None,
    **options: object,
) -> Job:
    environment = UvEnvironment.model_validate({"project": "unused", "verify": verify, **options})
    activation = plan_environment(environment, LocalHost(), made)
    context = LaunchContext(Resources(), "process")
    launch = plan(BashLauncher(), (PYTHON, "-c", payload), context)
    spec = JobSpec(JobIdentity("run", "step"), launch, activation, env=own or {})
    folder = tmp_path / "run dir"
    with tarfile.open(fileobj=io.BytesIO(bundle(spec, "#!/bin/bash\n"))) as archive:
        archive.extractall(folder, filter="data")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SLURM"))}
    argv = ["bash", str(folder / "job.sh"), str(folder)]
    done = subprocess.run(
        argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    return Job(folder, done.returncode, done.stdout, done.stderr)


def packages(made: Provided) -> Path:
    return next(Path(made.folder, "prefix", "lib").glob("python*/site-packages"))


@pytest.mark.parametrize("verify", ["names", "full", "off"])
def test_the_payload_s_own_interpreter_reports_exactly_the_lock(made: Provided, tmp_path: Path, verify: str):
    before = Path(made.folder, ".used").stat().st_mtime_ns
    job = run(made, tmp_path, verify)
    assert (job.code, job.stdout) == (0, "payload [('alpha', '1.0'), ('beta', '2.0')]\n"), job.stderr
    assert (Path(made.folder, ".used").stat().st_mtime_ns > before) == (verify != "off")


def test_what_the_script_s_env_says_holds_for_its_setup_too(made: Provided, tmp_path: Path):
    own = {"PYTHONPATH": "/elsewhere/mine", "UV_CACHE_DIR": "/elsewhere/cache"}
    setup = ['printf "%s %s\n" "$PYTHONPATH" "$UV_CACHE_DIR" >&2']
    show = "import os; print(*(os.environ[name] for name in ('PYTHONPATH', 'UV_CACHE_DIR', 'VIRTUAL_ENV')))"
    job = run(made, tmp_path, payload=show, own=own, setup=setup)
    assert job.stdout == f"{job.folder}/lib:/elsewhere/mine /elsewhere/cache {made.folder}/prefix\n"
    assert job.stderr == "/elsewhere/mine /elsewhere/cache\n"


def test_the_current_python_is_dagsters_own_with_what_its_conda_packages_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    plain = plan_environment(CurrentEnvironment(), LocalHost())
    assert ([step.kind for step in plain.steps], plain.export) == (["python"], ("PYTHONPATH",))
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.delenv("PYTHONPATH")
    conda = plan_environment(CurrentEnvironment(), LocalHost())
    assert ([(step.kind, *step.args) for step in conda.steps], conda.export) == (
        [("prefix", str(tmp_path))],
        (),
    )
    assert not plan_environment(CurrentEnvironment(), SshHost(type="ssh", hostname="login")).steps


def hand_install(made: Provided) -> str:
    folder = packages(made) / "extra_thing-9.9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: extra-thing\nVersion: 9.9\n")
    return "not wanted: extra-thing 9.9"


def copy_by_hand(made: Provided) -> str:
    (packages(made) / "sitecustomize.py").write_text("print('boo')")
    return "not wanted: sitecustomize.py, which no package of the lock brought"


def remove_package(made: Provided) -> str:
    shutil.rmtree(packages(made) / "beta-2.0.dist-info")
    return "missing: beta 2.0"


def remove_folder(made: Provided) -> str:
    shutil.rmtree(packages(made) / "beta")
    return "missing: beta"


def downgrade(made: Provided) -> str:
    (packages(made) / "beta-2.0.dist-info").rename(packages(made) / "beta-1.9.dist-info")
    return "different: beta: has 1.9, wanted 2.0"


def install_twice(made: Provided) -> str:
    shutil.copytree(packages(made) / "beta-2.0.dist-info", packages(made) / "beta-2.1.dist-info")
    return r"different: beta: has 2\.[01] and 2\.[01], wanted 2.0"


def remove_file(made: Provided) -> str:
    (packages(made) / "alpha" / "part.py").unlink()
    return "missing: alpha/part.py of alpha"


def change_file(made: Provided) -> str:
    path = packages(made) / "alpha" / "part.py"
    path.unlink()  # not the file of the cache that it may be linked to
    path.write_text("VALUE = 2\n")
    return "different: alpha/part.py of alpha"


def change_file_and_record(made: Provided) -> str:
    change_file(made)
    record = packages(made) / "alpha-1.0.dist-info" / "RECORD"
    text = record.read_text()
    record.unlink()
    record.write_text(re.sub(r"alpha/part.py,sha256=[^,]*,", "alpha/part.py,,", text))
    return "different: the list of files of alpha"


NAMES = [hand_install, copy_by_hand, remove_package, remove_folder, downgrade, install_twice]
FILES = [remove_file, change_file, change_file_and_record]


@pytest.mark.parametrize(
    ("spoil", "verify"),
    [
        *((spoil, mode) for spoil in NAMES for mode in ("names", "full")),
        *((spoil, "full") for spoil in FILES),
    ],
)
def test_a_difference_is_named_and_the_payload_does_not_start(
    made: Provided, tmp_path: Path, spoil: Callable[[Provided], str], verify: str
):
    expected = spoil(made)
    job = run(made, tmp_path, verify)
    assert job.code == 96
    assert "payload" not in job.stdout
    assert re.search(f"^{expected}$", job.stderr, re.MULTILINE), job.stderr
    assert "is not what the lock says" in job.stderr


def test_another_python_than_the_lock_s_is_named(made: Provided, tmp_path: Path):
    other = Provided(made.folder, {**made.manifest, "python": "3.9.1"}, "ready")
    job = run(other, tmp_path)
    assert job.code == 96
    assert re.search(r"^different: Python is 3\.\d+\.\d+, wanted 3\.9\.1$", job.stderr, re.MULTILINE)


def test_a_lock_newer_than_the_environment_is_named(made: Provided, tmp_path: Path):
    newer = Provided(made.folder, {**made.manifest, "packages": {"alpha": "1.1", "beta": "2.0"}}, "ready")
    job = run(newer, tmp_path)
    assert job.code == 96
    assert "different: alpha: has 1.0, wanted 1.1" in job.stderr


def test_setup_commands_run_in_order_and_are_never_spliced(made: Provided, tmp_path: Path):
    setup = ["export FIRST='a b'; ulimit -n 64", 'printf "%s\n" "$FIRST; $(ulimit -n)" >&2']
    job = run(made, tmp_path, setup=setup)
    assert (job.code, job.stderr) == (0, "a b; 64\n")


def test_a_setup_command_that_fails_stops_the_job(made: Provided, tmp_path: Path):
    job = run(made, tmp_path, setup=["true", "false # $(touch boo) '"])
    assert job.code == 96
    assert "this command of the environment's setup failed: false # $(touch boo) '" in job.stderr
    assert "payload" not in job.stdout
