"""`dg-slurm import`: batch scripts as they are found, as YAML that passes the check and asks Slurm for the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from project_fixture import Project, failure_text
from waiting import PATIENCE

import slurm_testcluster as slurm
from dagster_slurm_components.cli.main import main
from dagster_slurm_components.spec.sbatch_import import MOST_ELEMENTS, yaml_entry, yaml_text

GOLDEN = Path(__file__).parent / "golden"


def dg_slurm(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


def test_golden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    text = (GOLDEN / "import.sbatch").read_text()
    (tmp_path / "jobs" / "train model.sbatch").write_text(text)
    (tmp_path / "jobs" / "fit.slurm").write_text("#!/usr/bin/env Rscript\n#SBATCH -t 5\nprint(1)\n")
    monkeypatch.chdir(tmp_path)
    done = dg_slurm("import", "jobs/train model.sbatch", "jobs/fit.slurm")
    assert done.exit_code == 0
    if os.environ.get("DAGSTER_SLURM_UPDATE_GOLDEN"):
        (GOLDEN / "import.yaml").write_text(done.stdout)
    assert done.stdout == (GOLDEN / "import.yaml").read_text()
    notes = [line.removeprefix("    # ") for line in done.stdout.splitlines() if line.startswith("    # ")]
    assert done.stderr.splitlines() == notes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs"]


def test_what_is_written_passes_the_check_and_is_never_written_over(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = project.root / "train model.sbatch"
    source.write_bytes((GOLDEN / "import.sbatch").read_bytes())
    schemas = project.root / "schemas"
    assert dg_slurm("schema", "--folder", str(schemas)).exit_code == 0
    target = project.defs / "imported"
    assert dg_slurm("import", str(source), "--to", str(target)).exit_code == 0
    assert (target / "train model.sh").read_bytes() == source.read_bytes()
    text = (target / "defs.yaml").read_text()
    first = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (target / first).resolve() == (schemas / "defs.schema.json").resolve()
    checked = dg_slurm("check", str(target))
    assert checked.exit_code == 0, checked.output
    again = dg_slurm("import", str(source), "--to", str(target))
    assert again.exit_code == 1
    assert "there is such a file" in again.output
    assert (target / "defs.yaml").read_text() == text


def test_two_scripts_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a.sbatch", "a.slurm"):
        (tmp_path / name).write_text("true\n")
    done = dg_slurm("import", *map(str, tmp_path.iterdir()), "--to", str(tmp_path / "to"))
    assert (done.exit_code, (tmp_path / "to").exists()) == (1, False)


@pytest.mark.parametrize(
    ("array", "keys"),
    [
        ("0-3", ["0", "1", "2", "3"]),
        ("1,3,5-9:2", ["1", "3", "5", "7", "9"]),
        ("4%2", ["4"]),
        ("1,1", ["1"]),
        (f"1-{MOST_ELEMENTS + 1}", None),
        ("0-99999999", None),
        ("5-1", None),
        ("a", None),
        ("1%0", None),
    ],
)
def test_arrays(array: str, keys: list[str] | None) -> None:
    entry, notes = yaml_entry(f"#SBATCH --array={array}\n", "a.sbatch")
    (asset,) = entry["assets"]
    found = asset.get("partitions_def", {}).get("partition_keys")
    assert found == keys
    assert len(notes) == 1
    assert ("left out" in notes[0]) == (keys is None)


def test_the_page_shows_what_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "from-sbatch.md").read_text()
    script, shown_there = re.findall(r"^```(?:bash|console)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "train.sbatch").write_text(script)
    monkeypatch.chdir(tmp_path)
    done = dg_slurm("import", "train.sbatch")
    assert f"$ dg-slurm import train.sbatch\n{done.stderr}{done.stdout}" == shown_there


LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))


@given(lines=st.lists(LINE), body=st.text(st.characters(exclude_categories=["Cs"])), name=LINE)
def test_any_script_becomes_yaml_that_says_what_was_meant(lines: list[str], body: str, name: str) -> None:
    text = "".join(f"#SBATCH {line}\n" for line in lines) + body
    entry, notes = yaml_entry(text, f"{name.replace('/', '')}x.sbatch")
    (script,) = yaml.safe_load(yaml_text([(entry, notes)]))["attributes"]["scripts"]
    assert script == entry
    assert all(note.isprintable() for note in notes)


PAYLOAD = """\
echo "task ${SLURM_ARRAY_TASK_ID-none}"
scontrol show job -o "$SLURM_JOB_ID" >"%s"
"""
FIELDS = (
    "NumNodes|NumCPUs|NumTasks|CPUs/Task|TimeLimit|Requeue|MinMemoryNode|MinMemoryCPU|OverSubscribe|Features"
    "|MinTmpDiskNode|ReqB:S:C:T|Partition|Nice"
)
OPTIONS = {
    "short": "-n2 -c 1 -t 3 --mem=120M --no-requeue",
    "long": '--nodes=2 --ntasks-per-node 1\n#SBATCH --time="0-00:02:30" --mem-per-cpu=50 --requeue # twice',
    "whole nodes": "--exclusive -N1-1 --time 1 --nice=5 --begin now",
}


def shown(text: str) -> dict[str, str]:
    return dict(re.findall(rf"(?:^| )({FIELDS})=(\S*)", text))


@pytest.mark.slurm
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("how", ["import", "as it is"])
def test_slurm_is_asked_for_the_same(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, options: str, how: str
) -> None:
    seen = project.root / "seen.txt"
    source = project.root / "old.sbatch"
    source.write_text(f"#!/bin/bash\n#SBATCH {options}\n#SBATCH -J old -o /dev/null\n{PAYLOAD % seen}")
    done = subprocess.run(
        ["sbatch", "--wait", str(source)],
        env={**os.environ, "SLURM_CONF": str(cluster.slurm_conf)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    original = shown(seen.read_text())
    seen.unlink()
    project.staging(cluster)
    if how == "import":
        imported = dg_slurm("import", str(source), "--to", str(project.defs))
        assert imported.exit_code == 0, imported.output
    else:
        project.write("old.sbatch", "").write_text(source.read_text())
        project.scripts("scripts: [{payload: old.sbatch, assets: [{key: old}]}]")
    result = project.run("staging", instance=instance)
    assert result.success, failure_text(result)
    assert shown(seen.read_text()) == original
    assert len(original) > 8


@pytest.mark.slurm
def test_an_element_of_an_imported_array_finds_its_number(
    project: Project,
    cluster: slurm.Cluster,
    instance: dg.DagsterInstance,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source = project.root / "old.sbatch"
    source.write_text(f"#!/bin/bash\n#SBATCH --array=1-7:3%2 -t5\n{PAYLOAD % (project.root / 'seen.txt')}")
    project.staging(cluster)
    assert dg_slurm("import", str(source), "--to", str(project.defs)).exit_code == 0
    result = project.run("staging", instance=instance, partition_key="4")
    assert result.success, failure_text(result)
    assert "task 4\n" in capfd.readouterr().out


def test_render_names_the_line_of_each_option(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_SLURM_PROFILE", raising=False)
    project.profile("there", "host: {type: ssh, hostname: h}\nscheduler: slurm\nworkdir: /w\n")
    project.write("old.sbatch", "").write_text("#!/bin/bash\n#SBATCH -o x -N2 --mem 1G\ntrue\n")
    project.scripts("scripts: [{payload: old.sbatch, resources: {mem: 2G}, assets: [{key: a}]}]")
    done = dg_slurm("render", "a", "--profile", "there", "--json")
    assert done.exit_code == 0, done.output
    seen = json.loads(done.output)
    assert {"#SBATCH --nodes=2", "#SBATCH --mem=2G"} <= set(seen["header"].splitlines())
    values = {each["path"]: (each["layer"], each["position"].rpartition("/")[2]) for each in seen["values"]}
    assert values["resources.nodes"] == ("#SBATCH", "old.sbatch:2:14")
    assert values["resources.mem"][0] == "script"
