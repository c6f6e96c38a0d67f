"""``dg-slurm data``: what scripts read, brought before they run, listed and removed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import files_server
import pytest
from click.testing import CliRunner
from files_server import FilesServer
from project_fixture import Project

from dagster_slurm_components.cli.main import main

files = files_server.files
pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def data(*args: str, status: int = 0) -> Any:
    done = CliRunner().invoke(main, ["data", *args, "--profile", "staging", "--json"])
    assert done.exit_code == status, done.output + str(done.exception)
    return json.loads(done.stdout) if status == 0 else done.output


def test_planned_fetched_listed_and_pruned(
    project: Project, cluster: Any, files: FilesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.staging(cluster)
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("DAGSTER_SLURM_CACHE", str(project.root / "cache"))
    project.write("data/one.csv", "1,2\n")
    project.write("data/two.csv", "3,4\n")
    url = files.serve("/zoo.bin", b"z" * 5000)
    project.scripts(f"""
scripts:
  - command: ["true"]
    inputs:
      table: file:data
      zoo: {url.replace("http://", "http://me:secret@")}
      day: "https://example.org/{{{{ partition_key }}}}"
      upstream: asset:other
    assets: [{{key: a}}]
""")
    first = {row["input"]: (row["state"], row["to_send"]) for row in data("plan")}
    assert first == {
        "table": ("2 of 2 files are missing", 8),
        "zoo": ("to be fetched", None),
        "day": ("known when it runs", None),
        "upstream": ("is made by an asset", None),
    }
    fetched = data("fetch")
    assert [(row["input"], Path(row["path"]).name) for row in fetched] == [
        ("table", "data"),
        ("zoo", "zoo.bin"),
    ]
    assert Path(fetched[1]["path"]).read_bytes() == b"z" * 5000
    assert "secret" not in json.dumps(fetched)
    second = {row["input"]: row["state"] for row in data("plan")}
    assert (second["table"], second["zoo"]) == ("ready", "there, and asked for anew")
    project.write("data/two.csv", "5\n")
    assert data("plan")[0]["state"] == "1 of 2 files are missing"

    listed = data("list")
    assert sorted(row["name"] for row in listed["trees"]) == ["data", "zoo.bin"]
    assert listed["bytes"] >= 5008
    assert data("prune", "--unused-for", "1d")["removed"] == []
    would = data("prune", "--max", "100K", "--dry-run")
    assert would["removed"] == []
    gone = data("prune", "--unused-for", "0s")
    assert sorted(name for _, name, _ in gone["removed"]) == ["data", "zoo.bin"]
    assert data("list")["trees"] == []
    assert not os.path.exists(fetched[0]["path"])


def test_plain_words(project: Project, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project.staging(cluster)
    monkeypatch.chdir(project.root)
    project.write("one.csv", "1,2\n")
    project.scripts("""
scripts:
  - command: ["true"]
    inputs: {table: "file:one.csv"}
    assets: [{key: a}]
""")
    told = [
        CliRunner().invoke(main, ["data", command, "staging"]).stdout
        for command in ("plan", "fetch", "list", "prune")
    ]
    assert told[0].splitlines()[1].split("\t") == [
        "true",
        "table",
        "file:one.csv",
        "1 of 1 files are missing",
        "4 B",
    ]
    assert told[1].splitlines()[1].startswith("true\ttable\tfile:one.csv\t/")
    assert told[2].splitlines()[1].split("\t")[0] == "one.csv"
    assert told[2].splitlines()[-1].startswith("all files: 4 B, ")
    assert told[3].splitlines()[-1] == "profile staging: 0 B freed"
    wrong = CliRunner().invoke(main, ["data", "prune", "staging", "--max", "many"])
    assert "'many' is no size such as 500G" in wrong.output
