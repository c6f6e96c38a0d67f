"""The key of an environment: any change of an input changes it, and nothing else does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from dagster_slurm_components.environments.content import (
    Artifact,
    EnvironmentPlan,
    Interpreter,
    Platform,
    build_order,
    compare,
)

NUMPY = Artifact(
    "numpy-2.4.6-cp311-cp311-linux_x86_64.whl", "a" * 64, 10, "wheel", url="https://x.invalid/numpy"
)
OWN = Artifact("own-1-py3-none-any.whl", "b" * 64, 10, "wheel", path="/home/ada/own.whl", identity="c" * 64)
UV = Artifact("uv", "d" * 64, 37_000_000, "tool", path="/home/ada/uv")
PLAN = EnvironmentPlan(
    kind="uv",
    name="study",
    packer="uv 0.13.9",
    platform=Platform("linux", "x86_64", "glibc", (2, 28)),
    packages={"numpy": "2.4.6", "own": "1"},
    artifacts=(NUMPY, OWN, UV),
    interpreter=Interpreter("/usr/bin/python3.11", "3.11.7"),
)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "conda"},
        {"packer": "uv 0.14.0"},
        {"platform": Platform("linux", "aarch64", "glibc", (2, 28))},
        {"platform": Platform("linux", "x86_64", "musl", (1, 2))},
        {"packages": {"numpy": "2.4.7", "own": "1"}},
        {"packages": {"numpy": "2.4.6"}},
        {"artifacts": (dataclasses.replace(NUMPY, sha256="e" * 64), OWN, UV)},
        {"artifacts": (NUMPY, dataclasses.replace(OWN, identity="e" * 64), UV)},
        {"artifacts": (NUMPY, UV)},
        {"interpreter": Interpreter("/usr/bin/python3.11", "3.11.8")},
        {"interpreter": Interpreter("/opt/python3.11", "3.11.7")},
        {"interpreter": None},
        {"inputs": {"modules": ["gcc/12"]}},
    ],
)
def test_any_input_changes_the_key(change: dict[str, Any]):
    assert dataclasses.replace(PLAN, **change).key != PLAN.key


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"platform": Platform("linux", "x86_64", "glibc", (2, 34))},
        {"packages": {"own": "1", "numpy": "2.4.6"}},
        {"artifacts": (UV, OWN, NUMPY)},
        {"artifacts": (dataclasses.replace(NUMPY, url="https://mirror.invalid/numpy", size=None), OWN, UV)},
        {"artifacts": (NUMPY, dataclasses.replace(OWN, sha256="e" * 64, path="/elsewhere"), UV)},
        {"artifacts": (NUMPY, OWN, dataclasses.replace(UV, sha256="e" * 64))},
    ],
)
def test_nothing_else_does(change: dict[str, Any]):
    assert dataclasses.replace(PLAN, **change).key == PLAN.key


def test_the_key_stays_the_same_from_release_to_release():
    assert PLAN.key == "1cf97aac46ac684bcecc415f31bb9eae"


def test_the_builder_is_told_what_travelled_and_which_python_the_environment_uses():
    order = build_order(PLAN, {NUMPY.sha256: 3})
    assert order["python"] == "/usr/bin/python3.11"
    assert (
        build_order(dataclasses.replace(PLAN, unpack=("python.tar",)), {})["python"] is None
    )  # it brings its own
    assert [(item["name"], item["pieces"], item["tool"]) for item in order["artifacts"]] == [
        (NUMPY.name, 3, False),
        (OWN.name, 0, False),
        ("uv", 0, True),
    ]


def test_differences_are_named():
    newer = dataclasses.replace(
        PLAN,
        packer="uv 0.14.0",
        packages={"numpy": "2.5.0", "six": "1.17.0"},
        artifacts=(dataclasses.replace(NUMPY, sha256="f" * 64),),
    )
    assert compare(PLAN.manifest(), newer.manifest()) == [
        "missing: six 1.17.0",
        "not wanted: own 1",
        "different: numpy: has 2.4.6, wanted 2.5.0",
        "different: packer: has uv 0.13.9, wanted uv 0.14.0",
        f"different: {NUMPY.name}: other content under the same name",
    ]
    assert compare(PLAN.manifest(), newer.manifest(), limit=2)[2:] == ["... and 3 more"]
    assert compare(PLAN.manifest(), PLAN.manifest()) == []
