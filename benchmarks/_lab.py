"""A private cluster and a project folder for the benchmarks that need a real Slurm."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import slurm_testcluster as slurm


@dataclass(frozen=True)
class Lab:
    """A running cluster, and a project whose ``staging`` profile reaches it over ssh."""

    cluster: slurm.Cluster
    project: Path


@contextmanager
def lab() -> Iterator[Lab]:
    """Bring a cluster up in a folder of its own, and take it down again."""
    root = Path(tempfile.mkdtemp(prefix="dg-slurm-bench-"))
    try:
        cluster = slurm.up(root / "cluster")
        project = root / "project"
        (project / "profiles").mkdir(parents=True)
        shutil.copy(cluster.folder / "profile.yaml", project / "profiles" / "staging.yaml")
        os.environ["DAGSTER_HOME"] = str(root / "dagster")
        (root / "dagster").mkdir()
        (root / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        yield Lab(cluster, project)
    finally:
        slurm.down(root / "cluster")
        shutil.rmtree(root, ignore_errors=True)
