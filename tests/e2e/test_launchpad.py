"""The launchpad of a real `dg dev`, through GraphQL and in a real browser; backfills too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pytest
import yaml
from browser import browser
from lifecycle.dev import Dev
from project_fixture import make_project
from waiting import eventually

import slurm_testcluster as slurm

pytestmark = pytest.mark.slow

PAYLOAD = """
    import json, os, subprocess, sys
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        job = os.environ.get("SLURM_JOB_ID")
        shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout if job else ""
        memory = [word for word in shown.split() if word.startswith("MinMemory")]
        seen = {"args": json.dumps(sys.argv[1:]), "profile": os.environ["DAGSTER_SLURM_PROFILE"], "memory": memory}
        pipes.report_asset_materialization(metadata=seen)
"""
SCRIPTS = """
    scripts:
      - payload: tells.py
        resources: {mem: 100M}
        assets: [{key: a}]
      - payload: tells.py
        resources: {mem: 100M}
        assets: [{key: days, partitions_def: {type: static, partition_keys: [x, y]}}]
"""
VALID = """
    query ($job: PipelineSelector!, $config: RunConfigData!) {
      isPipelineConfigValid(pipeline: $job, mode: "default", runConfigData: $config) {
        __typename ... on RunConfigValidationInvalid { errors { message } }
      }
    }
"""
BACKFILL = """
    mutation ($params: LaunchBackfillParams!) {
      launchPartitionBackfill(backfillParams: $params) {
        __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
      }
    }
"""
EDITOR = "//*[contains(@class, 'CodeMirror-lines')]"
MATERIALIZE = "(//button[contains(., 'Materialize')])"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, cluster: slurm.Cluster) -> Iterator[Dev]:
    project = make_project(tmp_path_factory.mktemp("launchpad") / "my project")
    project.staging(cluster)
    project.write("tells.py", PAYLOAD)
    project.scripts(SCRIPTS)
    with Dev.running(project, "staging") as made:
        yield made


def config(**asked: Any) -> dict[str, Any]:
    return {"ops": {"a": {"config": asked}}}


def told(dev: Dev, asset: str, run_id: str) -> dict[str, Any]:
    return next(metadata for run, metadata in dev.materializations(asset) if run == run_id)


def test_graphql(dev: Dev) -> None:
    job = {
        "repositoryLocationName": dev.location(),
        "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": ["a"]}],
    }

    def refusals(**asked: Any) -> list[str]:
        found = dev.ask(VALID, job=job, config=config(**asked))["isPipelineConfigValid"]
        return [error["message"] for error in found.get("errors", ())]

    assert refusals(resources={"mem": "64M"}, args=["x", 1]) == []
    (message,) = refusals(resources={"memm": "64M"})
    assert 'unexpected config entry "memm" at path root:ops:a:config:resources' in message
    run_id = dev.launch("a", config=config(resources={"mem": "64M"}), tags={"dagster-slurm/args": "[x, 1]"})
    dev.ends(run_id, dg.DagsterRunStatus.SUCCESS)
    assert told(dev, "a", run_id)["args"] == '["x", "1"]'
    assert told(dev, "a", run_id)["memory"] == ["MinMemoryNode=64M"]
    assert json.loads(told(dev, "a", run_id)["job/asked_in_run"]) == {
        "args": ["x", 1],
        "resources": {"mem": "64M"},
    }
    here = dev.launch("a", tags={"dagster-slurm/profile": "local"})
    dev.ends(here, dg.DagsterRunStatus.SUCCESS)
    assert (told(dev, "a", here)["profile"], told(dev, "a", here)["memory"]) == ("local", [])


def test_a_backfill_hands_its_tags_to_its_runs(dev: Dev) -> None:
    asked = {"dagster-slurm/resources.mem": "48M", "dagster-slurm/args": "['{{ partition_key }}']"}
    params = {
        "assetSelection": [{"path": ["days"]}],
        "partitionNames": ["x", "y"],
        "tags": [{"key": key, "value": value} for key, value in asked.items()],
    }
    started = dev.ask(BACKFILL, params=params)["launchPartitionBackfill"]
    assert started["__typename"] == "LaunchBackfillSuccess", started
    made = eventually(
        lambda: found if len(found := dev.materializations("days")) == 2 else None, "two partitions"
    )
    assert sorted(metadata["args"] for _, metadata in made) == ['["x"]', '["y"]']
    assert {metadata["memory"][0] for _, metadata in made} == {"MinMemoryNode=48M"}


def test_in_a_browser(dev: Dev, tmp_path: Path) -> None:
    with browser(tmp_path) as page:
        page.open(f"{dev.url}/assets/a")
        page.click(MATERIALIZE, shift=True)
        page.shows("Launchpad (configure assets)")
        page.click(EDITOR)
        page.type("ops:\n  a:\n  config:\n  resources:\n  memm: 56M")  # the editor indents
        page.shows('Received unexpected config entry "memm" at path root:ops:a:config:resources')
        page.shows("/* Memory on each node; a number alone is mebibytes, 0 is all of it. */")
        assert page.run("return [...document.querySelectorAll('button')].at(-1).disabled")
        page.click(EDITOR)
        page.type("ops:\n  a:\n  config:\n  resources:\n  mem: 56M")
        page.shows("No errors")
        page.click(f"{MATERIALIZE}[last()]")
        asked = json.dumps({"resources": {"mem": "56M"}})

        def made() -> dict[str, Any] | None:
            each = [metadata for _, metadata in dev.materializations("a")]
            return next((metadata for metadata in each if metadata.get("job/asked_in_run") == asked), None)

        assert eventually(made, "the run from the launchpad makes the asset")["memory"] == [
            "MinMemoryNode=56M"
        ]


def test_the_page_of_the_component(dev: Dev, tmp_path: Path) -> None:
    package, location = "dagster_slurm_components", quote(str(dev.location()))
    place = f"{dev.url}/locations/{location}/components/library/packages/{package}"
    with browser(tmp_path) as page:
        page.open(f"{place}/{package}.SlurmScriptComponent")
        page.shows("dg scaffold defs dagster_slurm_components.SlurmScriptComponent {component_name}")
        page.shows("defaults\nDefaults\nWhat all scripts have in common.")
        page.shows("scripts\nArray<Script>\nThe scripts: each is one op, and under Slurm one job.")
        sample = page.text.partition("Example defs.yaml\n#\n")[2].partition("\n\nScaffolding")[0]
        assert "(['object', 'string'])" not in page.text
        assert yaml.safe_load(sample)["attributes"]["scripts"][0]["payload"] == "train.py"
        # One level after the other, each with descriptions and an example.
        for name, below in {
            "scripts": "assets\nAny of:\nArray<AssetDeclaration>\nTemplate\nThe assets that the script makes.",
            "assets": "key\nstringintegerarray\nAsset key, slashes between its parts.",
            "profiles": "local\nOverride",
            "launcher": "Which launcher: `bash`, `srun`, `torchrun`, `ray`.",
            "resources": "Memory on each node; a number alone is mebibytes, 0 is all of it.",
        }.items():
            page.click(f"//button[.//div[contains(@class, 'propertyName_') and text()='{name}']]")
            page.shows(below)
