"""Fetching by hash, here and on the host, from a real HTTP server on loopback."""

from __future__ import annotations

import hashlib
import io
import urllib.request
from pathlib import Path

import pytest
from package_fixture import make_wheel, request_for, sys_executable, uv
from web_fixture import Server

from dagster_slurm_components.environments.content import Artifact
from dagster_slurm_components.environments.fetch import fetch
from dagster_slurm_components.environments.host.store import download
from dagster_slurm_components.environments.provide import provide
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.errors import EnvironmentFailedError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.spec.environments import UvEnvironment

pytestmark = pytest.mark.usefixtures("own_cache")


def artifact(server: Server, tmp_path: Path, data: bytes = b"content", *, user: str = "") -> Artifact:
    (tmp_path / "served" / "x-1.tar").write_bytes(data)
    url = server.url.replace("//", f"//{user}") + "/x-1.tar"
    return Artifact("x-1.tar", hashlib.sha256(b"content").hexdigest(), 7, "archive", url=url)


def test_a_file_is_fetched_once(server: Server, tmp_path: Path):
    wanted = artifact(server, tmp_path)
    (first,), (second,) = fetch([wanted]), fetch([wanted])
    assert first == second
    assert Path(first.path or "").read_bytes() == b"content"
    assert server.requests == ["/x-1.tar"]


def test_another_content_is_refused_and_not_kept(server: Server, tmp_path: Path, own_cache: Path):
    with pytest.raises(EnvironmentFailedError, match=r"x-1.tar arrived with another content") as caught:
        fetch([artifact(server, tmp_path, b"changed")])
    assert caught.value.code == "tampered"
    assert [path for path in (own_cache / "files").rglob("*") if path.is_file()] == []


def test_logins_come_from_the_url_or_netrc(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server.login = "ada:pass word"
    (tmp_path / "netrc").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(EnvironmentFailedError, match="can't be fetched: 401") as caught:
        fetch([artifact(server, tmp_path, user="ada:wrong@")])
    assert "wrong" not in str(caught.value)
    assert fetch([artifact(server, tmp_path, user="ada:pass%20word@")])[0].size == 7


def test_netrc(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server.login = "ada:secret"
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert fetch([artifact(server, tmp_path)])[0].size == 7


def test_netrc_is_not_sent_where_anybody_can_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("default login ada password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    sent: list[object] = []

    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        sent.append(request.get_header("Authorization"))
        return io.BytesIO()

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    for url in (
        "http://index.example.org/x",
        "https://index.example.org/x",
        "http://u:p@index.example.org/x",
    ):
        download(url, tmp_path / "x", 1.0)
    assert sent == [None, "Basic YWRhOnNlY3JldA==", "Basic dTpw"]


def test_what_is_gone_is_told_with_its_address(server: Server):
    gone = Artifact("y.tar", "0" * 64, 1, "archive", url=f"{server.url}/y.tar")
    with pytest.raises(EnvironmentFailedError, match=r"/y.tar: y.tar can't be fetched: 404"):
        fetch([gone])
    with pytest.raises(EnvironmentFailedError, match="no way is known to fetch 'ftp://x/y'"):
        fetch([Artifact("y", "0" * 64, 1, "archive", url="ftp://x/y")])


@pytest.mark.parametrize("reachable", [True, False])
def test_the_host_fetches_by_itself_what_it_can(
    server: Server, tmp_path: Path, reachable: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("UV_OFFLINE")  # its only index is the one on loopback
    served = tmp_path / "served"
    wheels = [make_wheel(served, "alpha", "1.0"), make_wheel(served, "beta", "2.0")]
    for wheel in wheels:
        server.publish(wheel)
    project = tmp_path / "study"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "study"\nversion = "0"\nrequires-python = ">=3.10"\ndependencies = ["alpha", "beta"]\n'
        f'[[tool.uv.index]]\nurl = "{server.url}/simple"\ndefault = true\n'
    )
    uv("lock", "--quiet", cwd=project)
    store = Store(Satellite(InProcessHost()), str(tmp_path / "work"), "staging")
    environment = UvEnvironment(project=str(project), build_on="host", python=sys_executable())
    if not reachable:
        # The host gets nothing, as behind a firewall; this machine has fetched before.
        here = UvEnvironment(project=str(project), python=sys_executable())
        provide(request_for(here), Store(store.satellite, str(tmp_path / "other"), "staging"))
        server.login = "nobody:knows"
    told: list[str] = []
    provided = provide(request_for(environment), store, tell=told.append)
    assert provided.manifest["packages"] == {"alpha": "1.0", "beta": "2.0"}
    wheel_bytes = sum(wheel.stat().st_size for wheel in wheels)
    uv_bytes = provided.sent - (0 if reachable else wheel_bytes)
    assert uv_bytes > 10_000_000
    assert any("can't fetch 2 of 2 files" in text for text in told) is not reachable


@pytest.mark.parametrize("password", ["pass%20word", "wrong"])
def test_the_host_takes_a_login_from_the_url_and_tells_nobody(server: Server, tmp_path: Path, password: str):
    server.login = "ada:pass word"
    wanted = artifact(server, tmp_path, user=f"ada:{password}@")
    store = Store(Satellite(InProcessHost()), str(tmp_path / "work"))
    row = {"name": wanted.name, "sha256": wanted.sha256, "url": wanted.url}
    failed = store.call("fetch", {"artifacts": [row]})["failed"]
    if password == "wrong":
        assert failed == {wanted.name: "HTTP Error 401: Unauthorized"}
    else:
        assert failed == {}
        assert store.lacking([wanted]) == []


def test_pip_s_own_settings_help_where_the_lock_s_address_does_not(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    wheel = make_wheel(mirror, "alpha", "1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(mirror))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    gone = f"{server.url}/{wheel.name}"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (found,) = fetch([Artifact(wheel.name, digest, None, "wheel", url=gone)])
    assert Path(found.path or "").read_bytes() == wheel.read_bytes()
    with pytest.raises(EnvironmentFailedError, match="can't be fetched: 404"):
        fetch([Artifact(wheel.name, "0" * 64, None, "wheel", url=gone)])
