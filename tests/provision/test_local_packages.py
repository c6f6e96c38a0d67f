"""Packages whose source lies beside the lock, as pixi and uv write them over time: built and imported for real."""

from __future__ import annotations

import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from conda_fixture import SUBDIR, make_channel, write_lock
from package_fixture import make_project, make_wheel, request_for, uv_request
from source_fixture import VERSION, commit, make_package

from dagster_slurm_components.environments import pixi
from dagster_slurm_components.environments.content import Platform, Request
from dagster_slurm_components.environments.pixi import read_lock
from dagster_slurm_components.environments.plan import Provided
from dagster_slurm_components.environments.provide import provide
from dagster_slurm_components.environments.sources import tree_digest
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.errors import DagsterSlurmError, EnvironmentFailedError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.spec.environments import EnvironmentSpec, PixiEnvironment

pytestmark = pytest.mark.usefixtures("own_cache")
LINUX = Platform("linux", "x86_64" if SUBDIR == "linux-64" else SUBDIR.partition("-")[2], "glibc", (2, 31))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Satellite(InProcessHost()), str(tmp_path / "work"), "staging")


def says(provided: Provided, code: str) -> str:
    argv = [f"{provided.folder}/prefix/bin/python", "-I", "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def asked(project: Path) -> Request[EnvironmentSpec]:
    return request_for(PixiEnvironment.model_validate({"project": str(project)}))


def pixi_project(folder: Path, number: int, location: str, /, **fields: Any) -> Path:
    """Write a ``pixi.lock`` with a Python and one package, in the words of a format."""
    python = make_channel(folder.parent / "channel")["python"]
    project = write_lock(folder, {"python": python}, version=number)
    lock = yaml.safe_load((project / "pixi.lock").read_text())
    lock["environments"]["default"]["packages"][SUBDIR].append({"pypi": location})
    where = "url" if "://" in location else "path"
    entry = (
        {"kind": "pypi", "name": "here", where: location}
        if number < 6
        else {"pypi": location, "name": "here"}
    )
    lock["packages"].append({**entry, **fields})
    (project / "pixi.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    return project


FORMATS = [
    (version, fields)
    for version in (4, 5, 6, 7)
    for fields in (
        {"version": "0.1.0", "sha256": f"{9:064x}"},
        {"version": "0.1.0"},
        *([{"sha256": f"{9:064x}"}, {}] if version == 7 else []),  # the others always name one
    )
]


@pytest.mark.parametrize("location", [".", "./", "../x", "pkgs/x", "./pkgs/x", "ABSOLUTE", "file://ABSOLUTE"])
def test_a_folder_in_any_format_is_built_whatever_the_lock_says_of_it(location: str, tmp_path: Path) -> None:
    """Its version was taken for `<dynamic>`, and in format 7 its hash for that of an archive."""
    absolute = str(tmp_path / "absolute" / "x")
    place = location.removeprefix("file://").replace("ABSOLUTE", absolute)
    package = tmp_path / "study" / place
    package.mkdir(parents=True)
    for version, fields in FORMATS:
        if location.startswith("file://") and version >= 6:
            continue  # pixi writes paths since
        project = pixi_project(tmp_path / "study", version, location.replace("ABSOLUTE", absolute), **fields)
        (found,) = read_lock(project / "pixi.lock", "default", LINUX).pypi
        assert (found.name, found.file.kind, found.file.sha256) == ("here", "folder", ""), (version, fields)
        assert found.file.path == str(package.resolve())
        before = pixi.inputs(asked(project))
        (package / "changed").write_text(f"{version} {fields}")
        assert pixi.inputs(asked(project)) != before, "a change of it makes another plan"


@pytest.mark.parametrize(
    ("version", "location", "fields"),
    [
        (4, "./here", {"version": "0.1.0"}),
        (5, "../here", {"version": "0.1.0", "sha256": f"{9:064x}", "editable": True}),
        (6, "./", {"version": "0.1.0", "sha256": f"{9:064x}", "editable": True}),
        (7, "here", {}),
        (7, "ABSOLUTE", {"version": "0.1.0", "sha256": f"{9:064x}"}),
    ],
)
def test_it_is_built_sent_and_imported(
    version: int, location: str, fields: dict[str, Any], tmp_path: Path, store: Store
) -> None:
    location = location.replace("ABSOLUTE", str(tmp_path / "absolute"))
    project = pixi_project(tmp_path / "study", version, location, **fields)
    make_package(project / location, "here")
    provided = provide(asked(project), store)
    assert says(provided, "import here; print(here.VALUE)") == "1"
    assert provided.manifest["packages"]["here"] == "2.5"
    (project / location / "here" / "__init__.py").write_text("VALUE = 2\n")
    assert says(provide(asked(project), store), "import here; print(here.VALUE)") == "2"


@pytest.mark.parametrize("version", [4, 5, 6, 7])
def test_a_wheel_beside_a_pixi_lock_has_a_hash_of_its_own(version: int, tmp_path: Path, store: Store) -> None:
    (tmp_path / "study").mkdir()
    wheel = make_wheel(tmp_path / "study", "here", "1.5")
    project = pixi_project(tmp_path / "study", version, f"./{wheel.name}", version="1.5")
    assert says(provide(asked(project), store), "import here; print(here.VERSION)") == "1.5"


@pytest.mark.parametrize("version", [4, 5, 6, 7])
def test_a_folder_that_is_not_there_is_named(version: int, tmp_path: Path, store: Store) -> None:
    project = pixi_project(tmp_path / "study", version, "./gone", version="1.5")
    with pytest.raises(EnvironmentFailedError, match=r"names a local package that is not there") as caught:
        provide(asked(project), store)
    assert str(tmp_path / "study" / "gone") in str(caught.value)


COMMIT = "0106aced5faa299e6ede89d1230bd6784f2c3660"


@pytest.mark.parametrize(
    ("version", "location", "url", "inside"),
    [
        (4, f"git+https://git.invalid/a/here.git@{COMMIT}", "https://git.invalid/a/here.git", ""),
        (5, f"git+ssh://git@git.invalid/a/here@{COMMIT}", "ssh://git@git.invalid/a/here", ""),
        (5, f"git+https://git.invalid/a@{COMMIT}#subdirectory=b/c", "https://git.invalid/a", "b/c"),
        (6, f"git+https://git.invalid/a/here?rev=main#{COMMIT}", "https://git.invalid/a/here", ""),
        (7, f"git+https://git.invalid/a?subdirectory=b%2Fc&tag=v1#{COMMIT}", "https://git.invalid/a", "b/c"),
    ],
)
def test_a_commit_in_a_pixi_lock(version: int, location: str, url: str, inside: str, tmp_path: Path) -> None:
    project = pixi_project(tmp_path / "study", version, location, version="0.1.0")
    ((name, file),) = read_lock(project / "pixi.lock", "default", LINUX).pypi
    assert (name, file.kind, file.url, file.identity) == ("here", "commit", url, COMMIT)
    assert (file.subdirectory, file.lock) == (inside, str(project / "pixi.lock"))


def test_a_branch_in_a_pixi_lock_is_none(tmp_path: Path) -> None:
    project = pixi_project(tmp_path / "study", 7, "git+https://me:secret@git.invalid/a@main", version="0.1.0")
    with pytest.raises(
        DagsterSlurmError, match=r"here comes from https://git.invalid/a, .* no full"
    ) as caught:
        read_lock(project / "pixi.lock", "default", LINUX)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("version", [4, 5, 6, 7])
def test_a_commit_in_a_pixi_lock_is_built_sent_and_imported(
    version: int, tmp_path: Path, store: Store
) -> None:
    origin = make_package(tmp_path / "origin" / "python", "here").parent
    at = commit(origin)
    location = f"git+{origin.as_uri()}"
    location += f"@{at}#subdirectory=python" if version < 6 else f"?subdirectory=python&branch=main#{at}"
    project = pixi_project(tmp_path / "study", version, location, version="0.1.0")
    assert says(provide(asked(project), store), "import here; print(here.VALUE)") == "1"


def test_uv_s_local_packages_of_each_kind(tmp_path: Path, index: Path, store: Store) -> None:
    """The project itself (virtual), members of its workspace, a folder beside it, and an editable one."""
    study = tmp_path / "study"
    make_package(study / "packages" / "one", "one")
    make_package(study / "packages" / "two", "two", version='version = "2.5"')
    make_package(tmp_path / "beside", "three")
    make_package(tmp_path / "editable", "four", version='version = "2.5"')
    more = '[tool.uv.workspace]\nmembers = ["packages/*"]\n[tool.uv.sources]\none = {workspace = true}\n'
    more += 'two = {workspace = true}\nthree = {path = "../beside"}\nfour = {path = "../editable", editable = true}\n'
    project = make_project(study, index, "one", "two", "three", "four", "alpha==1.0", more=more)
    sources = [
        line for line in (project / "uv.lock").read_text().splitlines() if line.startswith("source = ")
    ]
    kinds = ['{ virtual = "." }', '{ editable = "packages/one" }', '{ editable = "packages/two" }']
    kinds += ['{ directory = "../beside" }', '{ editable = "../editable" }']
    assert {f"source = {kind}" for kind in kinds} <= set(sources), sources
    provided = provide(uv_request(project), store)
    for name in ("one", "two", "three", "four"):
        assert says(provided, f"import {name}; print({name}.VALUE)") == "1"
        assert provided.manifest["packages"][name] == "2.5"
    (tmp_path / "beside" / "three" / "__init__.py").write_text("VALUE = 2\n")
    assert says(provide(uv_request(project), store), "import three; print(three.VALUE)") == "2"


def test_a_member_of_a_workspace_has_its_packages_from_the_lock_above_it(
    tmp_path: Path, index: Path, store: Store
) -> None:
    study = tmp_path / "study"
    for name, more in (("one", 'dependencies = ["two", "beta"]\n'), ("two", "")):
        make_package(study / "packages" / name, name, version=VERSION, more=more)
    (study / "packages" / "one" / "pyproject.toml").open("a").write(
        "[tool.uv.sources]\ntwo = {workspace = true}\n"
    )
    make_project(study, index, "alpha==1.0", more='[tool.uv.workspace]\nmembers = ["packages/*"]\n')
    provided = provide(uv_request(study / "packages" / "one"), store)
    assert provided.manifest["packages"] == {"beta": "2.0", "one": "2.5", "two": "2.5"}
    bare = provide(uv_request(study / "packages" / "one", install_project=False), store)
    assert bare.manifest["packages"] == {"beta": "2.0", "two": "2.5"}
    (study / "packages" / "two" / "two" / "__init__.py").write_text("VALUE = 2\n")
    changed = provide(uv_request(study / "packages" / "one"), store)
    assert says(changed, "import one, two; print(one.VALUE, two.VALUE)") == "1 2"


def test_a_folder_below_a_project_is_no_member_of_it(tmp_path: Path, index: Path, store: Store) -> None:
    study = make_project(tmp_path / "study", index, "alpha==1.0")
    make_package(study / "lib", "one", version=VERSION)
    with pytest.raises(EnvironmentFailedError, match=r"study/lib/uv.lock: can't be read") as caught:
        provide(uv_request(study / "lib"), store)
    assert f"Run `uv lock` in {study / 'lib'}" in str(caught.value)


def test_a_project_is_hashed_without_holding_its_files(tmp_path: Path) -> None:
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(96 << 20)
    tracemalloc.start()
    try:
        assert len(tree_digest(tmp_path)) == 64
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
