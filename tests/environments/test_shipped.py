"""What runs on hosts and in jobs: old Pythons, and nothing but the standard library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from satellite_fixture import OLD_PYTHON
from subprocess_dialer import SubprocessDialer

from dagster_slurm_components.environments.host.build import lock_of
from dagster_slurm_components.environments.store import PROGRAM, Store
from dagster_slurm_components.errors import EnvironmentFailedError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.program import modules
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.satellite.locks import acquire

PACKAGE = Path(__file__).parents[2] / "dagster_slurm_components" / "environments"


SHIPPED = [
    *((f"host/{path.name}", "3.6") for path in sorted((PACKAGE / "host").glob("*.py"))),
    ("job/verify_environment.py", "3.7"),
]


@pytest.mark.parametrize(("path", "oldest"), SHIPPED)
def test_shipped_programs_run_on_old_pythons(path: str, oldest: str):
    vermin = Path(sys.executable).with_name("vermin")
    argv = [str(vermin), f"--target={oldest}-", "--violations", "--eval-annotations", str(PACKAGE / path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_all_of_the_builder_is_sent():
    folder = PROGRAM.rpartition(".")[0]
    sent = modules(PROGRAM)
    assert set(sent) >= {f"{folder}.{path.stem}" for path in (PACKAGE / "host").glob("[a-z]*.py")}
    for name, text in sent.items():
        wanted = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
        assert {each for each in wanted if each and each.startswith("dagster")} <= set(sent), name


def test_a_build_that_waits_in_vain_for_another_says_so(tmp_path: Path):
    (tmp_path / "envs").mkdir()
    release = acquire(lock_of(str(tmp_path / "envs"), "abc"))
    assert release is not None
    with pytest.raises(EnvironmentFailedError) as caught:
        Store(Satellite(InProcessHost()), str(tmp_path)).call("build", {"key": "abc", "patience": 0.1})
    assert (caught.value.code, caught.value.hint is not None) == ("locked", True)
    release()


@pytest.mark.skipif(OLD_PYTHON is None, reason="no Python 3.6 on this machine (DAGSTER_SLURM_OLD_PYTHON)")
def test_the_builder_works_on_the_oldest_python(tmp_path: Path):
    host = RemoteHost(SubprocessDialer(str(OLD_PYTHON)))
    found = Store(Satellite(host), str(tmp_path)).call("probe", {"python": sys.executable})
    listed = Store(Satellite(host), str(tmp_path)).call("list", {})
    host.close()
    assert found["interpreters"][0]["version"] == ".".join(str(part) for part in sys.version_info[:3])
    assert listed == {"environments": [], "store": {"bytes": 0, "inodes": 0}}
