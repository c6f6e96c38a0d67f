"""Images that a real runtime makes of what Docker and its like save: once, to a file that can only be read."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import dagster as dg
import pytest
from containers.conftest import APPTAINER, runtime_or_skip
from project_fixture import Project, failure_text

REPORT = """
import os, pathlib
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.report_asset_materialization(metadata={
        "image": pathlib.Path("/etc/image").read_text(),
        "mine": os.environ["GREETING"],
        "images": os.environ["ONLY_IMAGE"],
    })
"""


def save(folder: Path, target: Path) -> Path:
    """Write an image as an OCI layout, with variables of its own that a script's are to win over."""
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": f"sha256:{digest}",
            "size": len(content),
        }

    layer_file = target / "layer.tar"
    with tarfile.open(layer_file, "w") as archive:
        archive.add(folder, ".", filter=lambda entry: None if ".singularity.d" in entry.name else entry)
    layer = blob(layer_file.read_bytes(), "layer.v1.tar")
    layer_file.unlink()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin:/bin", "GREETING=image", "ONLY_IMAGE=image"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    described = blob(json.dumps(config).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "config": described, "layers": [layer]}
    entry = {
        **blob(json.dumps(manifest).encode(), "manifest.v1+json"),
        "annotations": {"org.opencontainers.image.ref.name": "v1"},
    }
    (target / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (target / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    # What `docker save` writes, in the same files.
    names = [
        {
            "Config": f"blobs/sha256/{described['digest'][7:]}",
            "RepoTags": ["tests:v1"],
            "Layers": [f"blobs/sha256/{layer['digest'][7:]}"],
        }
    ]
    (target / "manifest.json").write_text(json.dumps(names))
    return target


@pytest.mark.slow
def test_an_archive_that_is_sent_and_a_layout_of_the_host(
    project: Project, instance: dg.DagsterInstance, image_folder: Path, tmp_path: Path
):
    runtime_or_skip("apptainer")
    layout = save(image_folder, tmp_path / "layout")
    with tarfile.open(project.root / "saved.tar", "w") as archive:
        for entry in layout.iterdir():
            archive.add(entry, entry.name)
    project.write("report.py", REPORT)
    project.profile("local", f"host: {{type: local}}\nscheduler: process\nworkdir: {tmp_path / 'work'}\n")
    project.scripts(f"""
        defaults: {{env: {{GREETING: mine}}}}
        scripts:
          - {{payload: report.py, name: sent, assets: [{{key: sent}}],
             environment: {{type: container, image: ../../../../saved.tar, {APPTAINER}}}}}
          - {{payload: report.py, name: fetched, assets: [{{key: fetched}}],
             environment: {{type: container, image: "oci:{layout}", {APPTAINER}}}}}
    """)
    result = project.run("local", instance=instance)
    assert result.success, failure_text(result)
    images = sorted((tmp_path / "work" / "envs").glob("*/image.sif"))
    assert [image.stat().st_mode & 0o777 for image in images] == [0o400, 0o400]
    for event in result.get_asset_materialization_events():
        values = {name: value.value for name, value in event.materialization.metadata.items()}
        assert (values["image"], values["mine"], values["images"]) == ("the tests' image\n", "mine", "image")
    # They are there: nothing is made again.
    written = [image.stat().st_mtime_ns for image in images]
    assert project.run("local", instance=instance).success
    assert [image.stat().st_mtime_ns for image in images] == written
