"""Environments on a host, made by the real uv: what travels, what is built, what is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from package_fixture import make_project, make_wheel, request_for, uv_request

from dagster_slurm_components.environments.plan import Provided
from dagster_slurm_components.environments.provide import provide
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.errors import EnvironmentFailedError, HostUnreachableError
from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.spec.environments import UvEnvironment

pytestmark = pytest.mark.usefixtures("own_cache")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class WatchedHost(InProcessHost):
    """This machine as a host that notes its calls, and lets a test change them."""

    def __init__(self) -> None:
        self.ops: list[str] = []
        self.sent: dict[str, int] = {}
        self.change: Callable[[str, dict[str, Any], bytes], bytes] = lambda op, params, blob: blob

    def call(
        self, op: str, params: Mapping[str, Any] | None = None, blob: bytes = b"", *, timeout: float = 60.0
    ) -> Reply:
        self.ops.append(op)
        given = dict(params or {})
        blob = self.change(op, given, blob)
        if op == "put":
            self.sent[given["path"]] = len(blob)
        return super().call(op, given, blob, timeout=timeout)


@pytest.fixture
def host() -> WatchedHost:
    return WatchedHost()


@pytest.fixture
def store(host: WatchedHost, tmp_path: Path) -> Store:
    return Store(Satellite(host), str(tmp_path / "work dir"), "staging")


def says(provided: Provided, code: str) -> str:
    python = f"{provided.folder}/prefix/bin/python"
    return subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def leftovers(store: Store) -> list[str]:
    envs = Path(store.workdir, "envs")
    return [entry.name for entry in envs.glob(".*") if not entry.name.startswith(".lock-")]


def test_an_environment_is_exactly_the_lock(store: Store, tmp_path: Path, index: Path):
    project = make_project(tmp_path / "study", index, "alpha==1.0", "beta")
    provided = provide(uv_request(project), store)
    assert provided.state == "built"
    assert provided.manifest["packages"] == {"alpha": "1.0", "beta": "2.0"}
    names = "import importlib.metadata as m; print(sorted((d.name, d.version) for d in m.distributions()))"
    assert says(provided, names) == "[('alpha', '1.0'), ('beta', '2.0')]"
    script = subprocess.run(
        [f"{provided.folder}/prefix/bin/alpha-says"], capture_output=True, text=True, check=True
    )
    assert script.stdout == "alpha 1.0\n"
    compiled = Path(provided.folder).glob("prefix/lib/python*/site-packages/alpha/__pycache__/*.pyc")
    assert len(list(compiled)) == 2
    assert leftovers(store) == []
    assert not list(Path(store.workdir, "store", "incoming").iterdir())
    modes = {path.stat().st_mode & 0o077 for path in [Path(provided.folder), Path(provided.folder, ".ready")]}
    assert modes == {0}


def test_an_unchanged_environment_costs_one_call_and_no_byte(
    store: Store, host: WatchedHost, tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    pinned = f"alpha==1.0 --hash=sha256:{sha256_of(index / 'alpha-1.0-py3-none-any.whl')}\n"
    (tmp_path / "requirements.txt").write_text(pinned)
    request = request_for(
        UvEnvironment(requirements=str(tmp_path / "requirements.txt"), python=sys.executable)
    )
    assert provide(request, store).state == "built"
    host.ops.clear()
    host.sent.clear()
    provided = provide(request, store)
    assert (provided.state, provided.sent, host.ops, host.sent) == ("ready", 0, ["read"], {})


def test_one_changed_package_travels_alone(store: Store, host: WatchedHost, tmp_path: Path, index: Path):
    project = make_project(tmp_path / "study", index, "alpha==1.0", "beta", "gamma")
    first = provide(uv_request(project), store)
    assert len(host.sent) == 4 + first.sent // (16 * 1024 * 1024)  # three wheels, and uv in pieces
    host.sent.clear()
    make_project(project, index, "alpha==1.1", "beta", "gamma")
    second = provide(uv_request(project), store)
    wheel = index / "alpha-1.1-py3-none-any.whl"
    assert list(host.sent.values()) == [wheel.stat().st_size] == [second.sent]
    assert second.folder != first.folder
    assert says(first, "import alpha; print(alpha.VERSION)") == "1.0"
    assert says(second, "import alpha; print(alpha.VERSION)") == "1.1"


def test_a_change_of_a_local_package_makes_another_environment(store: Store, tmp_path: Path, index: Path):
    package = tmp_path / "study" / "mine"
    (package / "mine").mkdir(parents=True)
    (package / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "1"\n' + BACKEND)
    (package / "backend.py").write_text(BACKEND_CODE)
    (package / "mine" / "__init__.py").write_text("VALUE = 1\n")
    more = '[tool.uv.sources]\nmine = {path = "mine"}\n'
    project = make_project(tmp_path / "study", index, "mine", more=more)
    first = provide(uv_request(project), store)
    assert says(first, "import mine; print(mine.VALUE)") == "1"
    os.utime(package / "mine" / "__init__.py")
    assert provide(uv_request(project), store).folder == first.folder
    (package / "mine" / "__init__.py").write_text("VALUE = 2\n")
    second = provide(uv_request(project), store)
    assert second.folder != first.folder
    assert says(second, "import mine; print(mine.VALUE)") == "2"


BACKEND = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
# A build backend in a few lines, so that no test fetches one.
BACKEND_CODE = """
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "mine-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.write("mine/__init__.py")
        wheel.writestr("mine-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: mine\\nVersion: 1\\n")
        wheel.writestr("mine-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("mine-1.dist-info/RECORD", "mine/__init__.py,,\\n")
    return name
"""


@pytest.mark.parametrize("where", ["on the way", "in the index", "in the store"])
def test_a_tampered_wheel_is_named_and_nothing_is_published(
    where: str, store: Store, host: WatchedHost, tmp_path: Path, index: Path, own_cache: Path
):
    project = make_project(tmp_path / "study", index, "alpha==1.0")
    wheel = index / "alpha-1.0-py3-none-any.whl"
    digest = sha256_of(wheel)
    if where == "on the way":
        spoil = bytearray(wheel.read_bytes())
        spoil[-1] ^= 1
        host.change = lambda op, params, blob: (
            bytes(spoil) if digest in params.get("path", "") and blob else blob
        )
    elif where == "in the index":
        # A lock from an index over HTTP keeps hashes; uv.lock of a local folder has none, so the cache stands for it.
        cached = own_cache / "files" / digest[:2] / f"{digest}-{wheel.name}"
        cached.parent.mkdir(parents=True)
        cached.write_bytes(b"spoilt")
        provide(uv_request(project), store)  # the broken copy is noticed, and fetched anew
        assert sha256_of(cached) == digest
        return
    else:
        provide(uv_request(project), store)
        stored = Path(store.workdir, "store", digest[:2], digest)
        stored.chmod(0o600)
        size = stored.stat().st_size
        stored.write_bytes(b"x" * size)  # as large as before: only its hash tells
        make_project(project, index, "alpha==1.0", "beta")
    with pytest.raises(EnvironmentFailedError) as caught:
        provide(uv_request(project), store)
    assert caught.value.code == "tampered"
    assert caught.value.detail == (wheel.name,)
    assert leftovers(store) == []
    host.change = lambda op, params, blob: blob
    assert provide(uv_request(project), store).state == "built"


def test_only_deployed_environments_are_accepted(store: Store, tmp_path: Path, index: Path):
    project = make_project(tmp_path / "study", index, "alpha==1.0", "beta")
    deployed = Store(store.satellite, store.workdir, "production", deployed=True)
    with pytest.raises(EnvironmentFailedError, match="dg-slurm env deploy --profile production"):
        provide(uv_request(project), deployed)
    assert not Path(store.workdir, "envs").exists()
    provide(uv_request(project), store)
    assert provide(uv_request(project), deployed).state == "ready"
    make_project(project, index, "alpha==1.1", "gamma")
    with pytest.raises(EnvironmentFailedError) as caught:
        provide(uv_request(project), deployed)
    assert caught.value.code == "not_deployed"
    expected = ("missing: gamma 3.0", "not wanted: beta 2.0", "different: alpha: has 1.0, wanted 1.1")
    assert caught.value.detail == expected


def test_a_lost_connection_is_waited_out(store: Store, host: WatchedHost, tmp_path: Path, index: Path):
    project = make_project(tmp_path / "study", index, "alpha==1.0")
    told: list[str] = []
    seen: list[str] = []

    def lose(op: str, params: dict[str, Any], blob: bytes) -> bytes:
        # The first of each kind of call is done, and its answer lost.
        if op not in seen:
            seen.append(op)
            InProcessHost.call(host, op, params, blob)
            raise HostUnreachableError("the connection was lost", where="there")
        return blob

    host.change = lose
    provided = provide(uv_request(project), store, tell=told.append, sleep=lambda seconds: None)
    assert says(provided, "import alpha; print(alpha.VERSION)") == "1.0"
    assert {"read", "mkdir", "put", "run", "hello"} == set(seen)
    assert any("as soon as the host answers" in text for text in told)


def test_a_host_that_stays_lost_is_waited_for_as_long_as_that_is_wanted(
    store: Store, host: WatchedHost, tmp_path: Path, index: Path
):
    project = make_project(tmp_path / "study", index, "alpha==1.0")

    def lose(op: str, params: dict[str, Any], blob: bytes) -> bytes:
        raise HostUnreachableError("no route to the host", where="there")

    host.change = lose
    waits: list[float] = []
    with pytest.raises(HostUnreachableError, match="no route to the host"):
        provide(uv_request(project), store, patience=60, sleep=waits.append)
    assert 30 < sum(waits) <= 60


def test_a_setup_command_that_fails_ends_the_build(store: Store, tmp_path: Path, index: Path):
    project = make_project(tmp_path / "study", index, "alpha==1.0")
    with pytest.raises(EnvironmentFailedError, match="setup failed: test -e '/no such'") as caught:
        provide(uv_request(project, setup=["true", "test -e '/no such'"]), store)
    assert caught.value.code == "activation_failed"


def test_setup_and_modules_are_part_of_the_environment(store: Store, tmp_path: Path, index: Path):
    project = make_project(tmp_path / "study", index, "alpha==1.0")
    folder = tmp_path / "bin $(x)"
    folder.mkdir()
    first = provide(uv_request(project, setup=[f"export PATH='{folder}':$PATH"]), store)
    assert provide(uv_request(project), store).folder != first.folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"python": "3.1"}, "wanted is Python 3.1, there is"),
        ({"python": "/no/such/python"}, "there is none"),
        ({"groups": ["absent"]}, "absent"),
    ],
)
def test_what_can_t_be_had_is_said(
    options: dict[str, Any], message: str, store: Store, tmp_path: Path, index: Path
):
    project = make_project(tmp_path / "study", index, "alpha==1.0")
    with pytest.raises(EnvironmentFailedError, match=message):
        provide(uv_request(project, **options), store)


def test_an_outdated_lock_is_refused(store: Store, tmp_path: Path, index: Path):
    project = make_project(tmp_path / "study", index, "alpha==1.0")
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(text.replace("alpha==1.0", "alpha==1.1"))
    with pytest.raises(EnvironmentFailedError, match="Run `uv lock`"):
        provide(uv_request(project), store)
    (project / "uv.lock").unlink()
    with pytest.raises(EnvironmentFailedError, match="Run `uv lock`"):
        provide(uv_request(project), store)


def test_the_manifest_tells_sizes(store: Store, tmp_path: Path, index: Path):
    make_wheel(index, "delta", "1.0", {"big.bin": bytes(1_000_000)})
    provided = provide(uv_request(make_project(tmp_path / "study", index, "delta")), store)
    found = json.loads(Path(provided.folder, ".ready").read_text())
    assert found["bytes"] > 1_000_000
    assert (
        found["inodes"] == sum(1 for _ in Path(provided.folder).rglob("*")) + 1 - 2
    )  # .ready and .used came after
