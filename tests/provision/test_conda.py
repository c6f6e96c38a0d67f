"""Conda packages, by the real conda-pack and the real rattler, from a handmade channel."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conda_fixture import SITE, SUBDIR, dist_info, install_prefix, make_channel, make_conda, write_lock
from package_fixture import make_wheel, request_for

from dagster_slurm_components.environments.content import Platform
from dagster_slurm_components.environments.pixi import read_lock
from dagster_slurm_components.environments.plan import Provided
from dagster_slurm_components.environments.provide import provide
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.errors import EnvironmentFailedError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.spec.environments import CondaEnvironment, PixiEnvironment

pytestmark = pytest.mark.usefixtures("own_cache")
LINUX = Platform("linux", "x86_64" if SUBDIR == "linux-64" else SUBDIR.partition("-")[2], "glibc", (2, 31))


@pytest.fixture
def channel(tmp_path: Path) -> dict[str, Path]:
    return make_channel(tmp_path / "channel")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Satellite(InProcessHost()), str(tmp_path / "work"), "staging")


def pixi(project: Path, **options: Any) -> Any:
    return request_for(PixiEnvironment.model_validate({"project": str(project), **options}))


def says(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def packages_of(provided: Provided) -> str:
    code = "import importlib.metadata as m; print(sorted((d.name, d.version) for d in m.distributions()))"
    return says(f"{provided.folder}/prefix/bin/python", "-I", "-c", code)


def assert_whole(store: Store) -> None:
    assert set(store.verify(mode="full").values()) == {()}


LOCKS = Path(__file__).with_name("locks")


@pytest.mark.parametrize(
    ("file", "version"),
    [("legacy", 1), ("legacy", 2), ("legacy", 3), ("v4", 4), ("v5", 5), ("v6", 6), ("v7", 7)],
)
def test_each_format_that_pixi_wrote_over_time_is_read(file: str, version: int, tmp_path: Path):
    text = (LOCKS / f"{file}.lock").read_text().replace("\nversion: 1\n", f"\nversion: {version}\n")
    (tmp_path / "pixi.lock").write_text(text)
    assert yaml.safe_load(text)["version"] == version
    linux = Platform("linux", "x86_64", "glibc", (2, 31))
    locked = read_lock(tmp_path / "pixi.lock", "default", linux)
    assert {(item.name, int(item.sha256, 16), item.size, item.url) for item in locked.conda} == {
        ("tzdata-2024a-h0_0.conda", 2, 102, "https://conda.invalid/forge/noarch/tzdata-2024a-h0_0.conda"),
        ("zlib-1.3-h1_0.conda", 1, 101, "https://conda.invalid/forge/linux-64/zlib-1.3-h1_0.conda"),
    }
    assert {(r.name.normalized, str(r.version), str(r.build)) for r in locked.records} == {
        ("tzdata", "2024a", "h0_0"),
        ("zlib", "1.3", "h1_0"),
    }
    wheel = "https://files.invalid/ab/cd/six-1.16.0-py2.py3-none-any.whl"
    six = ("six", wheel, f"{4:064x}")
    pypi = [(each.name, each.file.url, each.file.sha256) for each in locked.pypi]
    assert pypi == ([six] if version >= 4 else [])
    other = read_lock(tmp_path / "pixi.lock", "default", Platform("darwin", "arm64"))
    assert [item.name for item in other.conda] == ["zlib-1.3-h2_0.conda"]


def test_named_platforms_of_one_kind_are_chosen_by_name(tmp_path: Path):
    text = (LOCKS / "v7.lock").read_text()
    text = text.replace("- name: linux-64\n", "- name: workstation\n  subdir: linux-64\n")
    text = text.replace("- name: osx-arm64\n", "- name: cuda\n  subdir: linux-64\n")
    text = text.replace("      linux-64:\n", "      workstation:\n").replace(
        "      osx-arm64:\n", "      cuda:\n"
    )
    file = tmp_path / "pixi.lock"
    file.write_text(text)
    linux = Platform("linux", "x86_64", "glibc", (2, 31))
    with pytest.raises(
        EnvironmentFailedError, match="several platforms of the host's kind: cuda, workstation"
    ):
        read_lock(file, "default", linux)
    with pytest.raises(EnvironmentFailedError, match="no platform `jetson` for linux-64"):
        read_lock(file, "default", linux, "jetson")
    assert len(read_lock(file, "default", linux, "workstation").conda) == 2
    assert len(read_lock(file, "default", linux, "cuda").conda) == 1


@pytest.mark.parametrize("version", [4, 5, 6, 7])
def test_a_lock_of_a_handmade_channel_is_read_in_each_format(
    version: int, tmp_path: Path, channel: dict[str, Path]
):
    wheel = make_wheel(tmp_path, "alpha", "1.0")
    project = write_lock(tmp_path / "study", channel, version=version, wheels=(wheel,))
    locked = read_lock(project / "pixi.lock", "default", LINUX)
    assert sorted(item.name for item in locked.conda) == sorted(path.name for path in channel.values())
    assert [(each.name, each.file.name) for each in locked.pypi] == [("alpha", wheel.name)]


def test_a_pixi_environment_has_its_place_s_paths_and_its_wheels(
    store: Store, tmp_path: Path, channel: dict[str, Path]
):
    wheel = make_wheel(tmp_path, "alpha", "1.0")
    project = write_lock(tmp_path / "study", channel, wheels=(wheel,))
    provided = provide(pixi(project), store)
    assert packages_of(provided) == "[('alpha', '1.0'), ('native', '2.0'), ('pure', '3.0')]"
    assert says(f"{provided.folder}/prefix/bin/tool") == f"tool at {provided.folder}/prefix"
    assert says(f"{provided.folder}/prefix/bin/alpha-says") == "alpha 1.0"
    assert provided.manifest["packages"] == {"alpha": "1.0", "native": "2.0", "pure": "3.0"}
    assert provide(pixi(project), store).state == "ready"
    assert_whole(store)


def test_of_a_changed_conda_package_only_that_travels(store: Store, tmp_path: Path, channel: dict[str, Path]):
    big = {"share/big.bin": bytes(range(256)) * 40_000}
    channel["big"] = make_conda(tmp_path / "channel", "big", "1.0", big)
    project = write_lock(tmp_path / "study", channel)
    first = provide(pixi(project), store)
    assert first.sent > 10_000_000
    files = {f"{SITE}/{path}": data for path, data in dist_info("native", "2.1").items()}
    channel["native"] = make_conda(tmp_path / "channel", "native", "2.1", files)
    write_lock(project, channel)
    second = provide(pixi(project), store)
    assert packages_of(second) == "[('native', '2.1'), ('pure', '3.0')]"
    assert second.sent < 200_000  # its archive, and the one of files that hold the place's path
    assert says(f"{second.folder}/prefix/bin/tool") == f"tool at {second.folder}/prefix"


def test_a_spoilt_conda_environment_is_noticed(store: Store, tmp_path: Path, channel: dict[str, Path]):
    provided = provide(pixi(write_lock(tmp_path / "study", channel)), store)
    data = Path(provided.folder, "prefix/share/tool/data.txt")
    data.write_text("changed")
    (found,) = store.verify(mode="full").values()
    assert found == ("different: share/tool/data.txt of tool",)


def test_a_conda_package_with_another_content_is_named(
    store: Store, tmp_path: Path, channel: dict[str, Path]
):
    project = write_lock(tmp_path / "study", channel)
    channel["tool"].write_bytes(channel["tool"].read_bytes() + b"x")
    with pytest.raises(EnvironmentFailedError) as caught:
        provide(pixi(project), store)
    assert caught.value.code == "tampered"
    assert caught.value.detail == ("tool-1.0-h1_0.tar.bz2",)


@pytest.mark.parametrize(
    ("platform", "environment", "message"),
    [
        (Platform("linux", "riscv64"), "default", r"locked for linux-\w+, and the host is linux-riscv64"),
        (LINUX, "gpu", "no environment `gpu`, only default"),
    ],
)
def test_what_a_lock_lacks_is_said(
    platform: Platform, environment: str, message: str, tmp_path: Path, channel: dict[str, Path]
):
    project = write_lock(tmp_path / "study", channel)
    with pytest.raises(EnvironmentFailedError, match=message):
        read_lock(project / "pixi.lock", environment, platform)


def test_a_lock_of_nonsense_is_told_with_its_file(tmp_path: Path):
    (tmp_path / "pixi.lock").write_text("version: 99\n")
    with pytest.raises(EnvironmentFailedError, match=r"pixi.lock: can't be read"):
        read_lock(tmp_path / "pixi.lock", "default", LINUX)


def test_a_conda_prefix_is_packed_by_conda_pack(store: Store, tmp_path: Path, channel: dict[str, Path]):
    prefix = install_prefix(channel, tmp_path / "envs" / "training", tmp_path / "rattler")
    request = request_for(CondaEnvironment(prefix=str(prefix)))
    provided = provide(request, store)
    assert provided.manifest["name"] == "training"
    assert packages_of(provided) == "[('native', '2.0'), ('pure', '3.0')]"
    assert says(f"{provided.folder}/prefix/bin/tool") == f"tool at {provided.folder}/prefix"
    assert_whole(store)
    assert provide(request, store).state == "ready"


def test_a_prefix_that_is_none_and_one_for_another_platform_are_refused(
    store: Store, tmp_path: Path, channel: dict[str, Path]
):
    with pytest.raises(EnvironmentFailedError, match="no conda environment lies there"):
        provide(request_for(CondaEnvironment(prefix=str(tmp_path))), store)
    prefix = install_prefix(channel, tmp_path / "env", tmp_path / "rattler")
    record = next((prefix / "conda-meta").glob("tool-*.json"))
    record.write_text(json.dumps({**json.loads(record.read_text()), "subdir": "osx-arm64"}))
    with pytest.raises(EnvironmentFailedError, match="it is made for osx-arm64, and the host is linux-"):
        provide(request_for(CondaEnvironment(prefix=str(prefix))), store)
