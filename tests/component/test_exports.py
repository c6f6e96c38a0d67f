"""What the package offers, and what importing it costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from dagster.components.core.package_entry import discover_package_objects

import dagster_slurm_components

HEAVY = ("fabric", "paramiko", "invoke", "dagster", "pydantic", "yaml", "jinja2", "jsonschema")
LOADED = (
    "import sys, json; import dagster_slurm_components as d; {}; print(json.dumps([m for m in sys.modules]))"
)


def modules_after(code: str) -> set[str]:
    command = [sys.executable, "-c", LOADED.format(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_imports_nothing_else():
    assert not modules_after("pass").intersection(HEAVY)


def test_the_component_needs_no_connection_library():
    loaded = modules_after("d.SlurmScriptComponent")
    assert "dagster" in loaded
    assert not loaded.intersection(("fabric", "paramiko", "invoke", "jinja2"))


def test_every_public_name_is_there():
    for name in dagster_slurm_components.__all__:
        assert getattr(dagster_slurm_components, name).__name__ == name
    assert set(dagster_slurm_components.__all__) <= set(dir(dagster_slurm_components))


def test_dg_finds_the_component():
    found = discover_package_objects(["dagster_slurm_components"])
    assert [key.to_typename() for key in found] == ["dagster_slurm_components.SlurmScriptComponent"]


def test_unknown_name():
    with pytest.raises(AttributeError, match="SlurmScriptComponet"):
        dagster_slurm_components.SlurmScriptComponet  # noqa: B018
