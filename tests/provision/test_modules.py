"""Modules under an environment, by the real Lmod or Environment Modules: loaded for build and job, and checked."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from package_fixture import make_index, make_project, use_own_cache, uv_request

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
from dagster_slurm_components.spec.environments import EnvironmentSpec, ModulesEnvironment, UvEnvironment
from dagster_slurm_components.spec.hosts import LocalHost
from dagster_slurm_components.spec.launchers import BashLauncher
from dagster_slurm_components.spec.resources import Resources

INITS = ["/usr/share/lmod/lmod/init/bash", "/usr/share/modules/init/bash", "/usr/share/Modules/init/bash"]
"""Where Debian and Red Hat put Lmod and Environment Modules."""
OTHER = os.environ.get("DAGSTER_SLURM_MODULESHOME")
"""Another installation to test with, such as one that was unpacked and not installed."""

pytestmark = pytest.mark.skipif(
    not OTHER and not any(Path(init).exists() for init in INITS),
    reason="neither Lmod nor Environment Modules on this machine (apt-get install lmod)",
)
PAYLOAD = (
    "import os, shutil, sys; print('payload', os.environ['TOOL_HOME'], shutil.which('tool'), sys.prefix)"
)

TOOL = """#%Module1.0
conflict tool
prepend-path PATH "{folder}/bin"
setenv TOOL_HOME "{folder}/$env(BASE_VERSION)"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site's modules: `base` 2.1, `tool` 1.0 and 1.1 that need it, a `python`, and one that can't be loaded."""
    software = tmp_path / "soft ware"
    (software / "bin").mkdir(parents=True)
    (software / "bin" / "tool").write_text("#!/bin/sh\necho tool\n")
    (software / "bin" / "tool").chmod(0o755)
    (software / "python" / "bin").mkdir(parents=True)
    (software / "python" / "bin" / "python3").symlink_to(sys.executable)
    files = {
        "base/2.1": "#%Module1.0\nsetenv BASE_VERSION 2.1\n",
        "tool/1.0": TOOL.format(folder=software),
        "tool/1.1": TOOL.format(folder=software),
        "tool/.version": '#%Module1.0\nset ModulesVersion "1.0"\n',
        "python/9": f'#%Module1.0\nprepend-path PATH "{software}/python/bin"\nsetenv TOOL_HOME python\n',
        "broken/1": '#%Module1.0\nif { [module-info mode load] } { puts stderr "no licence"; break }\n',
    }
    for name, text in files.items():
        path = tmp_path / "modulefiles" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in [name for name in os.environ if name.startswith(("LMOD", "MODULE", "LOADEDMODULES", "_LM"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("BASH_FUNC_module%%", raising=False)
    monkeypatch.setenv("MODULEPATH", str(tmp_path / "modulefiles"))
    if OTHER:
        monkeypatch.setenv("MODULESHOME", OTHER)
    return software


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    use_own_cache(tmp_path, monkeypatch)
    return Store(Satellite(InProcessHost()), str(tmp_path / "work"), "staging")


def run(
    folder: Path, environment: EnvironmentSpec, made: Provided | None = None, payload: str = PAYLOAD
) -> subprocess.CompletedProcess[str]:
    activation = plan_environment(environment, LocalHost(), made)
    launch = plan(BashLauncher(), (PYTHON, "-c", payload), LaunchContext(Resources(), "process"))
    spec = JobSpec(JobIdentity("run", "step"), launch, activation)
    with tarfile.open(fileobj=io.BytesIO(bundle(spec, "#!/bin/bash\n"))) as archive:
        archive.extractall(folder, filter="data")
    return subprocess.run(
        ["/bin/bash", str(folder / "job.sh"), str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_modules_are_loaded_in_their_order(folder: Path, tmp_path: Path):
    done = run(tmp_path / "run", ModulesEnvironment(modules=["base"], load=["tool/1.1"]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"payload {folder}/2.1 {folder}/bin/tool ")


def test_an_environment_comes_before_what_its_modules_bring(folder: Path, tmp_path: Path, store: Store):
    project = make_project(tmp_path / "study", make_index(tmp_path / "index"), "alpha==1.0")
    modules = ["base/2.1", "tool", "python"]
    request = uv_request(project, modules=modules, python="python3")
    made = provide(request, store)
    assert made.manifest["inputs"]["modules"] == modules
    environment = UvEnvironment(project=str(project), modules=modules)
    payload = f"import alpha; {PAYLOAD}"
    done = run(tmp_path / "run", environment, made, payload)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"payload python {folder}/bin/tool {made.folder}/prefix\n"


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["base", "absent/3"], "absent/3"),
        (["broken"], "broken"),
        (["base", "tool/1.0", "tool/1.1"], "tool/1"),
    ],
)
def test_a_module_that_does_not_load_stops_the_job_before_the_payload(
    modules: list[str], message: str, folder: Path, tmp_path: Path
):
    done = run(tmp_path / "run", ModulesEnvironment(load=modules), payload="print('payload')")
    assert (done.returncode, done.stdout) == (96, "")
    assert "dagster-slurm: module" in done.stderr
    assert message in done.stderr


def test_a_module_that_does_not_load_stops_the_build(folder: Path, tmp_path: Path, store: Store):
    project = make_project(tmp_path / "study", make_index(tmp_path / "index"), "alpha==1.0")
    with pytest.raises(EnvironmentFailedError, match="absent") as caught:
        provide(uv_request(project, modules=["absent/3"]), store)
    assert caught.value.code == "activation_failed"
    assert not Path(store.workdir, "envs").exists()
