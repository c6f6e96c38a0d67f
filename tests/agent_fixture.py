"""An agent's folder of a test's own; whatever agent it started ends with the test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_slurm_components.hosts.agent import client, place


@pytest.fixture
def agent_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Switch the agent on, in a folder with a short name: a socket's path holds 108 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="dsa-", dir="/tmp"))
    monkeypatch.setenv(place.FOLDER, str(folder))
    monkeypatch.setenv(place.SWITCH, "on")
    yield folder
    client.stop()
    shutil.rmtree(folder)
