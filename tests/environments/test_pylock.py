"""Which file of a lock a platform gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dagster_slurm_components.environments.content import Interpreter, Platform
from dagster_slurm_components.environments.pylock import locked_packages
from dagster_slurm_components.environments.wheels import requirements
from dagster_slurm_components.errors import DagsterSlurmError

PYTHON = Interpreter("/usr/bin/python3", "3.11.7")
OLD = Platform("linux", "x86_64", "glibc", (2, 17))
NEW = Platform("linux", "x86_64", "glibc", (2, 34))
ARM = Platform("linux", "aarch64", "glibc", (2, 28))
MAC = Platform("darwin", "arm64", "", (14, 2))
ALPINE = Platform("linux", "x86_64", "musl", (1, 2))


def entry(name: str, digest: str = "a") -> dict[str, Any]:
    return {"url": f"https://x.invalid/{name}", "hashes": {"sha256": digest * 64}, "size": 5}


def package(*names: str, **more: Any) -> dict[str, Any]:
    return {"name": "Num.Py", "version": "1.0", "wheels": [entry(name) for name in names], **more}


def chosen(
    platform: Platform, *packages: dict[str, Any], python: Interpreter = PYTHON, **more: Any
) -> list[str]:
    found = locked_packages({"packages": list(packages)}, python, platform, Path("uv.lock"), **more)
    return [package.file.name for package in found]


WHEELS = [
    "num_py-1.0-cp311-cp311-macosx_11_0_arm64.whl",
    "num_py-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "num_py-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    "num_py-1.0-cp311-cp311-manylinux_2_28_aarch64.whl",
    "num_py-1.0-cp311-cp311-musllinux_1_2_x86_64.whl",
    "num_py-1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
    "num_py-1.0-cp311-cp311-win_amd64.whl",
]


@pytest.mark.parametrize(
    ("platform", "number"), [(MAC, 0), (OLD, 1), (NEW, 2), (ARM, 3), (ALPINE, 4)], ids=str
)
def test_each_platform_gets_its_own_wheel(platform: Platform, number: int):
    assert chosen(platform, package(*WHEELS)) == [WHEELS[number]]
    assert chosen(platform, package(*reversed(WHEELS))) == [WHEELS[number]]


def test_stable_abi_pure_and_legacy_wheels_fit_too():
    abi3 = "num_py-1.0-cp38-abi3-manylinux1_x86_64.whl"
    pure = "num_py-1.0-py3-none-any.whl"
    assert chosen(OLD, package(pure, abi3)) == [abi3]
    assert chosen(ARM, package(pure, abi3)) == [pure]
    free_threaded = Interpreter("/usr/bin/python3.13t", "3.13.1", abi_flags="t")
    ft = "num_py-1.0-cp313-cp313t-manylinux_2_17_x86_64.whl"
    gil = "num_py-1.0-cp313-cp313-manylinux_2_17_x86_64.whl"
    assert chosen(OLD, package(ft, gil), python=free_threaded) == [ft]


def test_markers_are_those_of_the_host_not_of_this_machine():
    mac_only = package("num_py-1.0-py3-none-any.whl", marker="sys_platform == 'darwin'")
    arm_only = package("num_py-1.0-py3-none-any.whl", marker="platform_machine == 'aarch64'")
    old_python = package("num_py-1.0-py3-none-any.whl", marker="python_full_version < '3.11'")
    assert chosen(NEW, mac_only, arm_only, old_python) == []
    assert len(chosen(MAC, mac_only, arm_only)) == 1
    assert len(chosen(ARM, mac_only, arm_only)) == 1
    assert len(chosen(NEW, old_python, python=Interpreter("", "3.10.4"))) == 1


def test_a_source_archive_and_a_folder_stand_in_where_there_is_no_wheel():
    sdist = package("num_py-1.0-cp311-cp311-win_amd64.whl", sdist=entry("num_py-1.0.tar.gz"))
    folder = {"name": "own", "directory": {"path": "lib/own", "editable": True}}
    found = locked_packages({"packages": [sdist, folder]}, PYTHON, NEW, Path("/study/uv.lock"))
    assert [(each.file.kind, each.file.url, each.file.path, each.name) for each in found] == [
        ("archive", "https://x.invalid/num_py-1.0.tar.gz", None, "num-py"),
        ("folder", None, "/study/lib/own", "own"),
    ]


def test_only_allowed_hashes_are_used():
    lock = package(
        wheels=[entry("num_py-1.0-1-py3-none-any.whl", "b"), entry("num_py-1.0-py3-none-any.whl", "a")]
    )
    allowed = {"num-py": frozenset(["a" * 64])}
    assert chosen(NEW, lock, allowed=allowed) == ["num_py-1.0-py3-none-any.whl"]
    with pytest.raises(DagsterSlurmError):
        chosen(NEW, lock, allowed={})


def test_what_is_lacking_is_listed_all_at_once():
    windows = package("num_py-1.0-cp311-cp311-win_amd64.whl")
    bare = {
        "name": "bare",
        "version": "3",
        "wheels": [{"url": "https://x.invalid/bare-3-py3-none-any.whl", "hashes": {}}],
    }
    with pytest.raises(DagsterSlurmError) as caught:
        chosen(NEW, windows, bare)
    text = str(caught.value)
    assert "uv.lock: no usable file for Python 3.11.7 on linux x86_64 (glibc 2.34)" in text
    assert "Num.Py 1.0: the lock has num_py-1.0-cp311-cp311-win_amd64.whl" in text
    assert "bare 3" in text


def commit_of(commit: str) -> dict[str, Any]:
    vcs = {"type": "git", "url": "https://me:secret@x.invalid/fork.git", "commit-id": commit}
    return {"name": "My.Fork", "version": "2", "vcs": {**vcs, "subdirectory": "python"}}


def test_a_commit_is_named_by_itself_and_a_branch_is_none():
    lock = {"packages": [commit_of("a1" * 20)]}
    ((name, file),) = locked_packages(lock, PYTHON, NEW, Path("/study/uv.lock"))
    assert (name, file.kind, file.sha256, file.identity) == ("my-fork", "commit", "", "a1" * 20)
    assert (file.lock, file.subdirectory) == ("/study/uv.lock", "python")
    with pytest.raises(DagsterSlurmError, match=r"uv.lock: my-fork comes from .* no full commit") as caught:
        chosen(NEW, commit_of("main"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("more", [{}, {"subdirectory": "python"}])
def test_a_package_inside_of_an_archive(more: dict[str, str]):
    fragment = "#subdirectory=python" if more else ""
    archive = {**entry(f"main.zip{fragment}"), **more}
    lock = {"packages": [{"name": "inner", "archive": archive}]}
    ((_, file),) = locked_packages(lock, PYTHON, NEW, Path("/study/uv.lock"))
    assert (file.name, file.subdirectory) == ("main.zip", more.get("subdirectory", ""))


def test_local_versions_are_unquoted():
    wheel = "num_py-2.5.0%2Bcpu-cp311-cp311-linux_x86_64.whl"
    assert chosen(NEW, package(wheel, version="2.5.0+cpu")) == [
        "num_py-2.5.0+cpu-cp311-cp311-linux_x86_64.whl"
    ]


def test_requirements_accept_exactly_these_files():
    assert requirements([("b", "2", "f" * 64), ("a", "1+cpu", "e" * 64)]) == (
        f"a==1+cpu --hash=sha256:{'e' * 64}\nb==2 --hash=sha256:{'f' * 64}\n"
    )
