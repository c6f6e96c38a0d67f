"""A real `dg` project in a temporary folder, and runs of its assets in a chosen profile."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster.components.core.component_tree import ComponentTree

import slurm_testcluster as slurm

_numbers = itertools.count()
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Project:
    """A project whose scripts lie in ``defs/work/defs.yaml``."""

    root: Path
    package: str

    @property
    def defs(self) -> Path:
        """The folder of the scripts."""
        return self.root / "src" / self.package / "defs" / "work"

    def write(self, name: str, text: str) -> Path:
        """Write a file beside ``defs.yaml``."""
        path = self.defs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def scripts(self, text: str) -> Path:
        """Write ``defs.yaml``: what stands below ``attributes``."""
        body = textwrap.indent(textwrap.dedent(text), "  ")
        head = "type: dagster_slurm_components.SlurmScriptComponent\nattributes:\n"
        return self.write("defs.yaml", head + body)

    def profile(self, name: str, text: str) -> Path:
        """Write a profile."""
        path = self.root / "profiles" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def staging(self, cluster: slurm.Cluster) -> None:
        """Write the profile that reaches a cluster over ssh; each project gets a working folder of its own."""
        text = (cluster.folder / "profile.yaml").read_text()
        lines = [line for line in text.splitlines() if not line.startswith("workdir:")]
        self.profile("staging", "\n".join([*lines, f"workdir: {self.root / 'cluster work'}", ""]))

    @contextmanager
    def definitions(self) -> Iterator[dg.Definitions]:
        """Load the project as Dagster does."""
        with self.tree() as tree:
            yield tree.build_defs()

    @contextmanager
    def tree(self) -> Iterator[ComponentTree]:
        """Return the project's components, which Dagster loads as they are asked for."""
        sys.path.insert(0, str(self.root / "src"))
        try:
            module = importlib.import_module(f"{self.package}.defs")
            yield ComponentTree(defs_module=module, project_root=self.root)
        finally:
            sys.path.remove(str(self.root / "src"))
            for name in [name for name in sys.modules if name.startswith(self.package)]:
                del sys.modules[name]

    def run(
        self, profile: str, *, instance: dg.DagsterInstance, select: Sequence[str] = (), **options: Any
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets in a profile, all or those selected; with more options of ``execute_in_process``."""
        before = os.environ.get("DAGSTER_SLURM_PROFILE")
        os.environ["DAGSTER_SLURM_PROFILE"] = profile
        try:
            with self.definitions() as definitions:
                job = definitions.resolve_implicit_global_asset_job_def()
                keys = [dg.AssetKey.from_user_string(key) for key in select] or None
                return job.execute_in_process(
                    instance=instance, raise_on_error=False, asset_selection=keys, **options
                )
        finally:
            if before is None:
                del os.environ["DAGSTER_SLURM_PROFILE"]
            else:
                os.environ["DAGSTER_SLURM_PROFILE"] = before

    def dg(
        self, *args: str, profile: str = "local", check: bool = True, home_name: str = "dagster home"
    ) -> subprocess.CompletedProcess[str]:
        """Run the `dg` program in the project."""
        home = self.root / home_name
        home.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(home),
            "DAGSTER_SLURM_PROFILE": profile,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.root / 'src'}:{Path(__file__).parents[1]}",
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }
        done = subprocess.run(
            [str(BIN / "dg"), *args],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done


def make_project(root: Path) -> Project:
    """Make an empty project, with a local profile."""
    package = f"project_{os.getpid()}_{next(_numbers)}"
    folder = root / "src" / package
    (folder / "defs" / "work").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "defs" / "__init__.py").touch()
    (folder / "definitions.py").write_text(
        "from pathlib import Path\n"
        "from dagster import definitions, load_from_defs_folder\n\n\n"
        "@definitions\n"
        "def defs():\n"
        "    return load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
    )
    (root / "pyproject.toml").write_text(
        f'[project]\nname = "{package}"\nversion = "0"\n\n[tool.dg]\ndirectory_type = "project"\n\n'
        f'[tool.dg.project]\nroot_module = "{package}"\n'
        'code_location_target_module = "' + package + '.definitions"\n'
    )
    made = Project(root, package)
    made.profile("local", "host: {type: local}\nscheduler: process\n")
    return made


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project in a folder whose name has a space."""
    made = make_project(tmp_path / "my project")
    # Loading a broken project leaves Dagster's working folder where it was (dagster 1.13): go back afterwards.
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance with its own storage."""
    home = tmp_path / "instance"
    home.mkdir()
    with dg.instance_for_test(temp_dir=str(home)) as made:
        yield made
    shutil.rmtree(home, ignore_errors=True)


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    """Return what the first failed step says."""
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            user = data.user_failure_data
            return (user.description if user and user.description else "") + (
                data.error.to_string() if data.error else ""
            )
    raise AssertionError("no step failed")
