"""Outputs from YAML to Dagster's metadata and to this machine, under both schedulers, in arrays and of left jobs."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from left.conftest import SOON, Left, left  # noqa: F401
from project_fixture import Project, failure_text
from reports_fixture import again
from waiting import eventually

import slurm_testcluster as slurm
from dagster_slurm_components import ComputeResource
from dagster_slurm_components.cli.main import main

PROFILES = ["local", pytest.param("staging", marks=[pytest.mark.slurm, pytest.mark.slow])]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PAYLOAD = f"""
import base64, os, sys
from pathlib import Path

for name in sys.argv[1:]:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(base64.b64decode("{PNG}") if file.suffix == ".png" else (name * 1000).encode())
"""


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest, project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "staging":
        project.staging(request.getfixturevalue("cluster"))
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", request.param)
    project.write("make.py", PAYLOAD)
    return str(request.param)


def metadata(instance: dg.DagsterInstance, key: str, partition: str | None = None) -> dict[str, Any]:
    wanted = dg.AssetRecordsFilter(dg.AssetKey(key), asset_partitions=[partition] if partition else None)
    (record,) = instance.fetch_materializations(wanted, limit=2).records
    assert record.asset_materialization is not None
    return dict(record.asset_materialization.metadata)


def get(*args: str, status: int = 0) -> str:
    done = CliRunner().invoke(main, ["get", *args])
    assert done.exit_code == status, done.output + str(done.exception)
    return done.output


def test_outputs_are_published_told_shown_and_brought_here(
    project: Project, instance: dg.DagsterInstance, profile: str
) -> None:
    project.scripts(f"""
defaults: {{env: {{DATA: '{project.root}/data'}}}}
scripts:
  - payload: make.py
    args: [report.md, plot.png, "w/a b;$(x)", w/deep/b]
    outputs:
      report: {{path: report.md, asset: a}}
      plots: "*.png"
      weights: {{path: w, to: "$DATA/models/w"}}
      maybe: {{path: nothing, optional: true}}
    assets: [{{key: a}}, {{key: b, deps: [a]}}]
""")
    result = project.run(profile, instance=instance)
    assert result.success, failure_text(result)
    seen, other = metadata(instance, "a"), metadata(instance, "b")
    folder = project.root / "data/models/w"
    assert sorted(each.name for each in folder.iterdir()) == [".dg-slurm-output", "a b;$(x)", "deep"]
    assert "output/report" not in other
    assert "output/report/preview" not in other
    assert "output/maybe" not in seen
    assert seen["output/weights/bytes"].value == 18_000 == other["output/weights/bytes"].value
    told = seen["output/weights"].value.splitlines()
    job = seen["job/id"].value
    assert told[0] == f"* `{folder}`"
    assert told[1] == "* 2 files, 17.6 KiB"
    assert told[2].startswith("* SHA-256 `")
    assert told[3] == f"* `dg-slurm get {job} weights --profile {profile}`"
    assert isinstance(seen["output/weights"], dg.MarkdownMetadataValue)
    assert seen["output/report/preview"].value == "report.md" * 1000
    assert seen["output/plots/preview"].value == f"![plot.png](data:image/png;base64,{PNG})"
    assert "output/weights/preview" not in seen

    lines = get(job, "-o", str(project.root / "here")).splitlines()
    assert len(lines) == 4
    assert (project.root / "here/weights/a b;$(x)").read_text() == "w/a b;$(x)" * 1000
    assert (project.root / "here/weights/deep/b").exists()
    assert get("a", "weights", "-o", str(project.root / "here")) == "2 of 2 files were here already\n"
    (project.root / "here/report/report.md").write_text("mine")
    assert "there is another" in get(job, "-o", str(project.root / "here"), status=1)
    rows = json.loads(get(job, "-o", str(project.root / "here"), "--force", "--json"))
    assert [row["state"] for row in rows] == ["fetched", "here", "here", "here"]
    assert "has no output `weight`" in get(job, "weight", status=1)


def test_a_missing_output_ends_the_step(project: Project, instance: dg.DagsterInstance, profile: str) -> None:
    file = project.scripts("""
scripts:
  - payload: make.py
    args: [out/a.pt]
    outputs:
      model: {path: "out/*.pt", to: /tmp/never}
      report: report.html
    assets: [{key: a}]
""")
    result = project.run(profile, instance=instance)
    assert not result.success
    text = failure_text(result)
    (event,) = result.get_step_failure_events()
    data = event.step_failure_data.user_failure_data
    assert data is not None
    run_dir = Path(str(data.metadata["job/run_directory"].value))
    assert f"Job {data.metadata['job/id'].value}: The payload ended well" in text
    assert "but not all of its outputs are there." in text
    declared = f"declared at {file}:9:17"
    assert (
        f"Output `report` (`report.html`, {declared}): nothing is there; looked for in {run_dir}/payload."
        in text
    )
    assert "All that the payload made is still there." in text
    assert (run_dir / "payload/out/a.pt").exists()
    assert not Path("/tmp/never").exists()
    assert data.metadata["output/model/bytes"].value == 8000
    assert instance.get_latest_materialization_event(dg.AssetKey("a")) is None


def test_each_element_of_an_array_has_its_own(
    project: Project, instance: dg.DagsterInstance, profile: str
) -> None:
    project.scripts(f"""
scripts:
  - payload: make.py
    args: ["out/{{{{ partition_key }}}}"]
    outputs:
      model: {{path: "out/{{{{ partition_key }}}}", to: "{project.root}/data/{{{{ partition_key }}}}"}}
      all: {{path: out, pull: true}}
      fixed: {{path: "out/[xy]", optional: true}}
    array: {{keys_per_task: 2}}
    op: {{backfill_policy: {{type: single_run}}}}
    assets: [{{key: a, partitions_def: {{type: static, partition_keys: [x, y, zz]}}}}]
""")
    result = project.run(
        profile,
        instance=instance,
        tags={"dagster/asset_partition_range_start": "x", "dagster/asset_partition_range_end": "zz"},
    )
    assert result.success, failure_text(result)
    for key in ("x", "y", "zz"):
        seen = metadata(instance, "a", key)
        assert seen["output/model"].value.splitlines()[0] == f"* `{project.root}/data/{key}`"
        assert seen["output/model/bytes"].value == 1000 * len(f"out/{key}")
        assert ("output/fixed" in seen) == (key != "zz")
        pulled = Path(str(seen["output/all/pulled"].value))
        assert pulled.is_relative_to(project.root / ".dagster-slurm/outputs")
        assert [each.name for each in pulled.iterdir()] == [key]
        command = seen["output/all"].value.splitlines()[3].strip("*` ").split()
        get(*command[2:], "-o", str(project.root / key))
        assert [each.name for each in (project.root / key / "all").iterdir()] == [key]


def test_of_a_left_job(left: Left) -> None:  # noqa: F811
    work = "import pathlib; pathlib.Path('r.md').write_text('# made')"
    left.project.write("work.py", work)
    left.scripts(
        f"{{payload: work.py, outputs: {{r: {{path: r.md, pull: true, to: '{left.project.root}/r.md'}}}},"
        " assets: [{key: a}]}",
        "{payload: work.py, outputs: {r: nothing, x: {path: r.md, asset: b}}, assets: [{key: b}]}",
    )
    assert left.run().success
    left.reported()
    (made,) = left.made("a")
    assert made.metadata["output/r"].value.splitlines()[0] == f"* `{left.project.root}/r.md`"
    assert made.metadata["output/r/preview"].value == "# made"
    assert str(made.metadata["output/r/pulled"].value).startswith(
        "not pulled, as the step left its job: `dg-slurm"
    )
    (failed,) = left.runs(dg.DagsterRunStatus.FAILURE)
    (note,) = left.notes
    assert "but not all of its outputs are there" in note
    texts = [entry.message for entry in left.instance.all_logs(failed.run_id)]
    assert any("Output `r` (`nothing`, declared at" in text for text in texts)


def test_what_is_pulled_is_here_whole(
    project: Project, instance: dg.DagsterInstance, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project.root / "profiles" / f"{profile}.yaml"
    known = file.read_text() if file.exists() else "host: {type: local}\nscheduler: process\n"
    project.profile(profile, f"{known}\npull_to: here\n")
    monkeypatch.setattr("dagster_slurm_components.pipes.pull._TELL_EVERY", 0.0)
    project.scripts(
        """
scripts:
  - payload: make.py
    args: ["w/a b;$(x)", w/deep/b, r.md, large]
    outputs:
      weights: {path: w, pull: true}
      report: r.md
      large: {path: large, pull: {max: 4K}}
      left: {path: r.md, pull: false}
    profiles: {PROFILE: {outputs: {report: {pull: {max: 1M}}}}}
    assets: [{key: a}]
""".replace("PROFILE", profile)
    )
    (project.root / "here").write_text("in the way")
    failed = project.run(profile, instance=instance)
    assert not failed.success
    assert f"can't be brought to {project.root}/here/" in failure_text(failed)
    (project.root / "here").unlink()
    again(project, instance, failed)
    seen = metadata(instance, "a")
    attempts = Path(str(seen["job/run_directory"].value)).parent
    assert len([each for each in attempts.iterdir() if (each / "ledger").exists()]) == 1, "one job"
    weights = Path(str(seen["output/weights/pulled"].value))
    assert weights.parent.parent.parent == project.root / "here" / failed.run_id
    assert (weights / "a b;$(x)").read_text() == "w/a b;$(x)" * 1000
    assert (weights / "deep/b").read_text() == "w/deep/b" * 1000
    report = Path(str(seen["output/report/pulled"].value))
    assert report == weights.parent / "report/r.md"
    assert report.read_text() == "r.md" * 1000
    assert sorted(each.name for each in weights.parent.iterdir()) == ["report", "weights"]
    made = Path(str(seen["job/run_directory"].value)) / "payload/r.md"
    assert (report.stat().st_ino == made.stat().st_ino) == (profile == "local")
    job = seen["job/id"].value
    told = "not pulled, as it has 4.9 KiB, and `pull` has `max` 4.0 KiB: "
    assert (
        seen["output/large/pulled"].value == f"{told}`dg-slurm get {job} large --profile {profile}` brings it"
    )
    assert "output/left/pulled" not in seen
    run_id = instance.get_runs(limit=1)[0].run_id
    lines = [entry.message for entry in instance.all_logs(run_id)]
    assert any(line.endswith(f"is here: {weights}") for line in lines)
    assert any("KiB are here." in line for line in lines) == (profile == "staging")


def test_from_python(project: Project, instance: dg.DagsterInstance, profile: str) -> None:
    payload = project.write("made.py", PAYLOAD)

    @dg.asset
    def a(context: dg.AssetExecutionContext, compute: ComputeResource) -> Any:
        outputs = {"out": "out", "no": {"path": "no", "optional": True}}
        done = compute.run(context=context, payload_path=str(payload), args=["out/x"], outputs=outputs)
        yield from done.get_results()

    resource = ComputeResource(project=str(project.root), profile=profile)
    assert dg.materialize([a], instance=instance, resources={"compute": resource}).success
    assert metadata(instance, "a")["output/out/bytes"].value == 5000


def test_without_python_outputs_are_told_as_not_checked(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("make.sh", "echo x >out")
    project.scripts("scripts: [{payload: make.sh, outputs: {out: out}, assets: [{key: a}]}]")
    old = project.root / "old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    project.profile(
        "local", f"host: {{type: local}}\nscheduler: process\nenv: {{PATH: '{os.environ['PATH']}'}}\n"
    )
    monkeypatch.setenv("DAGSTER_SLURM_HOST_PYTHON", str(old))
    result = project.run("local", instance=instance)
    assert result.success, failure_text(result)
    seen = metadata(instance, "a")
    assert (
        seen["job/outputs"].value
        == f"not checked, and none is published: {os.uname().nodename} has no python3"
    )
    stderr = Path(str(seen["job/run_directory"].value)) / "stderr.log"
    assert stderr.read_text().startswith("The outputs are not checked: ")


@pytest.mark.slurm
@pytest.mark.slow
def test_an_interrupted_get_goes_on(
    project: Project, instance: dg.DagsterInstance, cluster: slurm.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.staging(cluster)
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", "staging")
    size = 128 * 2**20
    project.write(
        "big.py", f"import os; open('big', 'wb').write(os.urandom({size})); open('small', 'w').write('s')"
    )
    project.scripts("scripts: [{payload: big.py, outputs: {all: '*g', s: small}, assets: [{key: a}]}]")
    result = project.run("staging", instance=instance)
    assert result.success, failure_text(result)
    draw, here = random.Random(7), project.root / "here"
    command = [sys.executable, "-m", "dagster_slurm_components.cli.main", "get", "a", "-o", str(here)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    before = 0

    def parts() -> int:
        return sum(each.stat().st_size for each in here.rglob("*.part"))

    for _ in range(3):
        until = before + draw.randrange(1, 12 * 2**20)
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            eventually(lambda until=until: parts() >= until, "some of it is here")
            process.kill()
        assert parts() >= before, "what was here has been kept"
        before = parts()
    assert not (here / "all/big").exists()
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert [line.rpartition("/")[2] for line in done.stdout.splitlines()] == ["big\t128.0 MiB", "small\t1 B"]
    source = Path(str(metadata(instance, "a")["job/run_directory"].value)) / "payload/big"
    assert (here / "all/big").read_bytes() == source.read_bytes()
    assert parts() == 0
