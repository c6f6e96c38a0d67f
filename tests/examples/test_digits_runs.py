"""The digits example as a newcomer runs it: the demo, then the same assets on a real Slurm."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from examples.digits.report import RunReport, pulled, read_run
from slurm_testcluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

ASSETS = [
    "diabetes/model",
    "diabetes/report",
    "diabetes/table",
    "digits/baseline",
    "digits/evaluation",
    "digits/model",
    "digits/report",
    "digits/split",
]
SELECTION = "group:digits or group:diabetes"
PNG = b"\x89PNG\r\n\x1a\n"
PLACES = ("file", "seconds")
"""What the payloads report that may differ between two runs: where a file lies, how long something took."""


@dataclass(frozen=True)
class Project:
    """A copy of the example, with a Dagster instance of its own, and programs run in it as a user would."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / ".dagster"

    def run(self, *argv: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        # Where Python may not keep its bytecode, each of Dagster's many processes compiles everything anew.
        theirs = ("DAGSTER", "DATA_DIR", "DIGITS", "PYTHONDONTWRITEBYTECODE")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(theirs)}
        environment |= {
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_SLURM_AGENT": "off",  # an agent would outlive the test
            # Before the example as the development environment has it installed.
            "PYTHONPATH": os.pathsep.join([str(self.folder / "src"), str(ROOT)]),
        }
        return subprocess.run(
            [str(word) for word in argv],
            cwd=self.folder,
            env=environment | env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    def dg(self, *words: str, **env: str) -> str:
        """Run ``dg`` and return what it said; it must succeed."""
        completed = self.run(BIN / "dg", *words, **env)
        assert completed.returncode == 0, completed.stdout
        return completed.stdout

    def newest_report(self) -> RunReport:
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return read_run(instance, instance.get_runs(limit=1)[0].run_id)

    def numbers(self) -> dict[str, dict[str, object]]:
        """What the payloads of the newest run reported, and whether their checks passed."""
        report = self.newest_report()
        assert report.succeeded, report.errors
        return {
            asset.key: {name: value for name, value in asset.payload.items() if name not in PLACES}
            | asset.checks
            for asset in report.assets
        }


@pytest.fixture
def project(tmp_path: Path) -> Project:
    copy = Project(tmp_path / "digits project")
    left_behind = shutil.ignore_patterns(".dagster*", "__pycache__")
    shutil.copytree(ROOT / "examples" / "digits", copy.folder, ignore=left_behind)
    copy.home.mkdir()
    (copy.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return copy


def run_files(project: Project) -> dict[str, set[str]]:
    """The files of each run directory of the newest run, but for what the payload's Python keeps for itself."""
    folders = {asset.key: Path(str(asset.job["run_directory"])) for asset in project.newest_report().assets}
    return {
        key: {
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        for key, folder in folders.items()
    }


def handed_on(project: Project) -> dict[str, object]:
    """What the second pipeline hands on, by content; that each is where it should be is looked at here.

    The executed notebook and its page tell when cells ran, so that these differ between two runs.
    """
    report = project.newest_report()
    found = {asset.key: asset for asset in report.assets}
    table, model, drawn = (found[f"diabetes/{name}"] for name in ("table", "model", "report"))
    folders = {asset.key: Path(str(asset.job["run_directory"])) for asset in (model, drawn)}
    read = {key: json.loads((folder / "inputs.json").read_text()) for key, folder in folders.items()}
    sources = {name: one["source"] for name, one in read["diabetes/model"].items()}
    assert sources == {"table": "asset:diabetes/table", "variables": "file:variables.csv"}
    told = {name: (one["path"], one["hash"]) for inputs in read.values() for name, one in inputs.items()}
    assert told["table"] == (table.outputs["table/path"], table.outputs["table/hash"])
    assert told["model"] == (model.outputs["model/path"], model.outputs["model/hash"])

    (figure,) = map(Path, pulled(report))
    assert figure.is_relative_to(project.folder / ".dagster-slurm" / "outputs")
    assert figure.read_bytes().startswith(PNG)
    shown = base64.b64encode(figure.read_bytes()).decode()
    assert drawn.outputs["figure/preview"] == f"![figure.png](data:image/png;base64,{shown})"
    assert set(drawn.outputs) >= {"notebook", "page", "pictures/preview"}
    executed = json.loads(Path(str(drawn.outputs["notebook/path"])).read_text())
    (given,) = (
        cell for cell in executed["cells"] if "injected-parameters" in cell["metadata"].get("tags", ())
    )
    parameters = {"table": told["table"][0], "model": told["model"][0], "errors": 2}
    assert "".join(given["source"]) == "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    return {name: digest for name, (_, digest) in told.items()} | {"figure": shown}


@pytest.mark.slow
@pytest.mark.slurm
def test_both_profiles_give_the_same_results_and_files(project: Project, cluster: Cluster):
    demo = project.run(sys.executable, "demo.py", "local")
    assert demo.returncode == 0, demo.stdout
    assert "accuracy_at_least_95" in demo.stdout
    assert "outputs: notebook" in demo.stdout
    numbers, files, content = project.numbers(), run_files(project), handed_on(project)
    assert [f"brought here: {place}" in demo.stdout for place in pulled(project.newest_report())] == [True]
    assert sorted(numbers) == ASSETS
    assert all("partition" not in asset.job for asset in project.newest_report().assets)

    project.dg(
        "launch",
        "--assets",
        SELECTION,
        DAGSTER_SLURM_PROFILE="staging",
        DAGSTER_SLURM_CLUSTER=str(cluster.folder),
        DIGITS_ENV=sys.prefix,
    )
    assert project.numbers() == numbers
    assert run_files(project) == files
    assert handed_on(project) == content
    jobs = [asset.job for asset in project.newest_report().assets]
    assert len({job["id"] for job in jobs}) == len(ASSETS)
    assert {job["partition"] for job in jobs} == {cluster.profile["resources"]["partition"]}


@pytest.mark.slow
def test_the_demo_tells_why_it_failed(project: Project):
    load = project.folder / "src" / "digits" / "defs" / "digits" / "load.py"
    load.write_text("import sys\nprint('the disk of dreams is full', file=sys.stderr)\nsys.exit(3)\n")
    demo = project.run(sys.executable, "demo.py")
    assert demo.returncode == 1
    assert "the disk of dreams is full" in demo.stdout
    assert "not run" in demo.stdout


def test_the_demo_tells_of_an_unknown_profile(project: Project):
    demo = project.run(sys.executable, "demo.py", "locl")
    assert demo.returncode == 1
    assert "did you mean `local`?" in demo.stdout


def test_dg_lists_and_checks_the_definitions(project: Project):
    listed = json.loads(project.dg("list", "defs", "--json"))
    assets = {asset["asset_key"]: asset for asset in listed["assets"] if asset["group_name"] != "scale_out"}
    assert sorted(assets) == ASSETS
    assert assets["diabetes/report"]["dependency_keys"] == [
        "diabetes/model",
        "diabetes/table",
    ]  # from its inputs
    assert "successfully" in project.dg("check", "defs")
