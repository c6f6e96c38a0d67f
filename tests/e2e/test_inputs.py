"""Inputs from YAML to payloads, here and over ssh into Slurm: files, folders, assets and their partitions."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import dagster as dg
import files_server
import pytest
from files_server import FilesServer
from project_fixture import Project, failure_text

from dagster_slurm_components import ComputeResource

PROFILES = ["local", pytest.param("staging", marks=[pytest.mark.slurm, pytest.mark.slow])]
READ = """
import json, os, sys
from pathlib import Path
import dagster_slurm_payload as payload

def tree(path):
    if path.is_file():
        return path.read_text()
    return {name.name: tree(name) for name in sorted(path.iterdir())}

seen = {name[20:]: str(Path(value)) for name, value in os.environ.items() if name.startswith("DAGSTER_SLURM_INPUT_")}
told = {name: tree(Path(path)) for name, path in seen.items()}
payload.materialize("read", {"told": told, "paths": seen, "args": sys.argv[1:]})
"""
files = files_server.files
HOSTILE = "a b;$(x)'\n\u00e4"


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest, project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "staging":
        project.staging(request.getfixturevalue("cluster"))
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", request.param)
    monkeypatch.setenv("DAGSTER_SLURM_CACHE", str(project.root / "cache"))
    project.write("read.py", READ)
    return str(request.param)


def reported(instance: dg.DagsterInstance, key: str = "read") -> dict[str, Any]:
    event = instance.get_latest_materialization_event(dg.AssetKey(key))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def test_files_and_folders_of_this_machine(
    project: Project, instance: dg.DagsterInstance, profile: str
) -> None:
    project.write("data/one.csv", "1,2\n")
    project.write(f"data/deep/{HOSTILE}", "odd")
    (project.defs / "data" / "empty").mkdir()
    program = project.write("program", "#!/bin/sh\n")
    program.chmod(0o755)
    project.scripts("""
scripts:
  - payload: read.py
    args: ["--table={{ inputs.table }}", "{{ inputs['all'] }}"]
    inputs:
      table: file:data/one.csv
      all: {source: "file:data"}
      program: file:program
    assets: [{key: read}]
""")
    result = project.run(profile, instance=instance)
    assert result.success, failure_text(result)
    seen = reported(instance)
    assert seen["told"] == {
        "TABLE": "1,2\n",
        "ALL": {"one.csv": "1,2\n", "deep": {HOSTILE: "odd"}, "empty": {}},
        "PROGRAM": "#!/bin/sh\n",
    }
    assert seen["args"] == [f"--table={seen['paths']['TABLE']}", seen["paths"]["ALL"]]
    assert Path(seen["paths"]["ALL"]).name == "data"
    assert os.access(seen["paths"]["PROGRAM"], os.X_OK)
    told = json.loads((Path(seen["job/run_directory"]) / "inputs.json").read_text())
    assert told["table"]["source"] == "file:data/one.csv"
    before = seen["paths"]

    project.write("data/one.csv", "3,4\n")
    result = project.run(profile, instance=instance)
    assert result.success, failure_text(result)
    seen = reported(instance)
    assert seen["told"]["TABLE"] == "3,4\n"
    assert seen["paths"]["PROGRAM"] == before["PROGRAM"]
    assert (seen["paths"]["ALL"] == before["ALL"]) == (profile == "local")


MADE = """
import os, sys
from pathlib import Path

for name in sys.argv[1:]:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(os.environ.get("DAGSTER_SLURM_PARTITION_KEY", "all") + (os.environ.get("MORE") or ""))
"""
UPSTREAM = """
scripts:
  - payload: make.py
    args: [out/a, out/b, report.md]
    outputs: {model: out, report: {path: report.md, to: "TARGET"}}
    assets: [{key: made}]
  - payload: read.py
    inputs: {model: {source: "asset:made", output: model}, report: {source: "asset:made", output: report}}
    assets: [{key: read}]
"""


def test_outputs_of_scripts_are_read_where_they_are(
    project: Project, instance: dg.DagsterInstance, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("make.py", MADE)
    target = project.root / "published" / "r.md"
    project.scripts(UPSTREAM.replace("TARGET", str(target)))
    result = project.run(profile, instance=instance)
    assert result.success, failure_text(result)
    seen, made = reported(instance), reported(instance, "made")
    assert seen["told"] == {"MODEL": {"a": "all", "b": "all"}, "REPORT": "all"}
    assert seen["paths"] == {"MODEL": made["output/model/path"], "REPORT": str(target)}
    with project.definitions() as definitions:
        graph = definitions.resolve_asset_graph()
        assert graph.get(dg.AssetKey("read")).parent_keys == {dg.AssetKey("made")}

    target.unlink()
    failed = project.run(profile, instance=instance, select=["read"])
    assert not failed.success
    assert f"{target}" in failure_text(failed)


def test_partitions_go_from_asset_to_asset(
    project: Project, instance: dg.DagsterInstance, profile: str
) -> None:
    project.write("make.py", MADE)
    keys = ["a/b", "c d", "e"]
    project.scripts(f"""
scripts:
  - payload: make.py
    args: [out]
    outputs: {{value: out}}
    op: {{backfill_policy: {{type: single_run}}}}
    array: {{}}
    assets: [{{key: made, partitions_def: {{type: static, partition_keys: {json.dumps(keys)}}}}}]
  - payload: read.py
    inputs: {{value: asset:made}}
    op: {{backfill_policy: {{type: single_run}}}}
    array: {{}}
    assets: [{{key: read, partitions_def: {{type: static, partition_keys: {json.dumps(keys)}}}}}]
  - payload: all.py
    inputs: {{value: asset:made}}
    assets: [{{key: all}}]
""")
    project.write(
        "all.py",
        """
        import csv, os
        from pathlib import Path
        import dagster_slurm_payload as payload

        lines = Path(os.environ["DAGSTER_SLURM_INPUT_VALUE_FILE"]).read_text().splitlines()
        rows = [line.split("\\t") for line in lines]
        payload.materialize("all", {"told": {key: Path(path).read_text() for key, path in rows}})
        """,
    )
    tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    result = project.run(profile, instance=instance, select=["made", "read"], tags=tags)
    assert result.success, failure_text(result)
    for key in keys:
        wanted = dg.AssetRecordsFilter(dg.AssetKey("read"), asset_partitions=[key])
        (record,) = instance.fetch_materializations(wanted, limit=2).records
        assert record.asset_materialization is not None
        assert record.asset_materialization.metadata["told"].value == {"VALUE": key}
    result = project.run(profile, instance=instance, select=["read"], partition_key="c d")
    assert result.success, failure_text(result)
    assert reported(instance)["told"] == {"VALUE": "c d"}
    result = project.run(profile, instance=instance, select=["all"])
    assert result.success, failure_text(result)
    assert reported(instance, "all")["told"] == {key: key for key in keys}


def test_what_another_profile_made_is_brought(
    project: Project,
    instance: dg.DagsterInstance,
    profile: str,
    monkeypatch: pytest.MonkeyPatch,
    cluster: Any,
) -> None:
    project.staging(cluster)
    other = "staging" if profile == "local" else "local"
    project.write("make.py", MADE)
    project.scripts(UPSTREAM.replace("TARGET", str(project.root / "r.md")))
    monkeypatch.setattr("dagster_slurm_components.pipes.inputs._both_see", lambda *given: False)
    assert project.run(other, instance=instance, select=["made"]).success
    result = project.run(profile, instance=instance, select=["read"])
    assert result.success, failure_text(result)
    seen, made = reported(instance), reported(instance, "made")
    assert seen["told"] == {"MODEL": {"a": "all", "b": "all"}, "REPORT": "all"}
    assert seen["paths"]["MODEL"] != made["output/model/path"]


def test_mistakes_are_told_where_they_are_written(
    project: Project, instance: dg.DagsterInstance, profile: str
) -> None:
    file = project.scripts("""
scripts:
  - payload: read.py
    inputs:
      table: file:nowhere.csv
    assets: [{key: read}]
""")
    failed = project.run(profile, instance=instance)
    assert not failed.success
    assert (
        f"{file}:7:16: input `table`, file:nowhere.csv: {project.defs}/nowhere.csv is not there"
        in failure_text(failed)
    )


def test_what_can_not_travel_is_told_where_it_is_written(
    project: Project, instance: dg.DagsterInstance, profile: str
) -> None:
    (project.defs / "data").mkdir()
    (project.defs / "data" / "loop").symlink_to(project.defs)
    file = project.scripts("""
scripts:
  - payload: read.py
    inputs: {all: file:data}
    assets: [{key: read}]
""")
    failed = project.run(profile, instance=instance)
    assert not failed.success
    text = failure_text(failed)
    assert f"{file}:6:21: input `all`: {project.defs}/data/loop is a link to a folder" in text


def test_the_first_partition_has_none_before_it(
    project: Project, instance: dg.DagsterInstance, profile: str
) -> None:
    project.scripts("""
scripts:
  - payload: read.py
    args: ["{{ inputs.before }}"]
    inputs: {before: asset:read}
    outputs: {payload: read.py}
    assets:
      - key: read
        partitions_def: {type: daily, start_date: "2026-01-01"}
        deps: [{asset: read, partition_mapping: {type: time_window, start_offset: -1, end_offset: -1}}]
""")
    assert project.run(profile, instance=instance, partition_key="2026-01-01").success
    first = reported(instance)
    assert first["args"] == [""]
    assert project.run(profile, instance=instance, partition_key="2026-01-02").success
    assert reported(instance)["args"] == [first["output/payload/path"]]


def test_from_python(project: Project, instance: dg.DagsterInstance, profile: str) -> None:
    payload = project.write("read.py", READ)
    project.write("one.csv", "1,2\n")

    @dg.asset
    def read(context: dg.AssetExecutionContext, compute: ComputeResource) -> Any:
        inputs = {"table": f"file:{project.defs}/one.csv"}
        yield from compute.run(context=context, payload_path=str(payload), inputs=inputs).get_results()

    resource = ComputeResource(project=str(project.root), profile=profile)
    assert dg.materialize([read], instance=instance, resources={"compute": resource}).success
    assert reported(instance)["told"] == {"TABLE": "1,2\n"}


APART = """
import os, sys, urllib.request
from pathlib import Path
import dagster_slurm_payload as payload

path = Path(os.environ["DAGSTER_SLURM_INPUT_ZOO"])
told = {each.name: each.read_text() for each in path.iterdir()} if path.is_dir() else path.read_text()
try:
    urllib.request.urlopen(sys.argv[1], timeout=20)
    network = True
except OSError:
    network = False
payload.materialize("read", {"told": told, "network": network})
"""


def _has_namespaces() -> bool:
    return subprocess.run(["unshare", "--map-root-user", "--net", "true"], check=False).returncode == 0


@pytest.mark.skipif(not _has_namespaces(), reason="unshare can't make a network namespace here")
@pytest.mark.parametrize("fetch_on", ["login", "here", "{partition: debug}"])
def test_a_url_is_fetched_where_there_is_a_network(
    project: Project, instance: dg.DagsterInstance, profile: str, files: FilesServer, fetch_on: str
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", "an ape")
    url = files.serve("/zoo.zip", packed.getvalue(), etag='"1"')
    project.write("apart.py", APART)
    project.scripts(f"""
scripts:
  - command: [unshare, --map-root-user, --net, {sys.executable}, apart.py, "{url}"]
    files: [apart.py]
    inputs: {{zoo: {{source: "{url}", unpack: true, fetch_on: {fetch_on}}}}}
    assets: [{{key: read}}]
""")
    for _ in range(2):
        result = project.run(profile, instance=instance)
        assert result.success, failure_text(result)
        seen = reported(instance)
        assert seen["told"] == {"a.txt": "an ape"}
        assert seen["network"] is False
    assert len(files.requests) == 1


def test_a_url_that_is_not_there(
    project: Project, instance: dg.DagsterInstance, profile: str, files: FilesServer
) -> None:
    file = project.scripts(f"""
scripts:
  - payload: read.py
    inputs: {{zoo: "{files.url("/zoo.zip", "me:secret@")}"}}
    assets: [{{key: read}}]
""")
    failed = project.run(profile, instance=instance)
    assert not failed.success
    text = failure_text(failed)
    assert f"{file}:6:21: input `zoo`" in text
    assert "404" in text
    assert "secret" not in text
