"""Indexes that ask for a login, from a real server on loopback: found where uv finds it, and told nobody."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from package_fixture import make_project, make_wheel, request_for, sys_executable, uv, uv_request
from source_fixture import BACKEND, VERSION, make_package
from web_fixture import Server

from dagster_slurm_components.environments.logins import login_for
from dagster_slurm_components.environments.provide import provide
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.errors import EnvironmentFailedError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.spec.environments import UvEnvironment

pytestmark = pytest.mark.usefixtures("own_cache", "at_home")


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged in with is of this test alone; its only index is the one on loopback."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("UV_OFFLINE")
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "NETRC", "PIP_CONFIG_FILE", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Satellite(InProcessHost()), str(tmp_path / "work"), "staging")


def private_project(server: Server, folder: Path, *dependencies: str, more: str = "") -> Path:
    """Lock a project of an index on loopback, which from then on asks for a login."""
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "study"\nversion = "0"\nrequires-python = ">=3.10"\n'
        f"dependencies = {list(dependencies)!r}\n[[tool.uv.index]]\n"
        f'name = "my.index"\nurl = "{server.url}/simple"\ndefault = true\n{more}'
    )
    uv("lock", "--quiet", cwd=folder)
    server.login = "ada:se%cret"
    return folder


def give_login(way: str, server: Server, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, home = server.url.replace("//", "//ada:se%25cret@"), project.parent
    if way == "variables":
        monkeypatch.setenv("UV_INDEX_MY_INDEX_USERNAME", "ada")
        monkeypatch.setenv("UV_INDEX_MY_INDEX_PASSWORD", "se%cret")
    elif way == "the index's address":
        file = project / "pyproject.toml"
        file.write_text(file.read_text().replace(f'"{server.url}', f'"{url}'))
    elif way == "uv's settings of the user":
        (home / ".config" / "uv").mkdir(parents=True)
        (home / ".config" / "uv" / "uv.toml").write_text(f'[[index]]\nurl = "{url}/simple"\n')
    elif way == "an address in a variable":
        monkeypatch.setenv("UV_INDEX", f"other={url}/simple")
    elif way == "uv auth login":
        uv("auth", "login", server.url, "--username", "ada", "--password", "se%cret", cwd=project)
    else:
        monkeypatch.setenv("NETRC", str(home / "some netrc"))
        (home / "some netrc").write_text("machine 127.0.0.1 login ada password se%cret\n")


WAYS = ["variables", "the index's address", "uv's settings of the user", "an address in a variable"]


@pytest.mark.parametrize("way", [*WAYS, "uv auth login", "NETRC"])
def test_a_login_is_found_where_uv_finds_it(
    way: str, server: Server, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.publish(make_wheel(tmp_path, "alpha", "1.0"))
    project = private_project(server, tmp_path / "study", "alpha")
    with pytest.raises(EnvironmentFailedError, match=r"alpha-1.0\S+ can't be fetched: 401") as caught:
        provide(uv_request(project), store)
    assert "UV_INDEX_<NAME>_USERNAME" in str(caught.value)
    give_login(way, server, project, monkeypatch)
    told: list[str] = []
    provided = provide(uv_request(project), store, tell=told.append)
    assert provided.manifest["packages"] == {"alpha": "1.0"}
    places = [path for name in ("cache", "work") for path in (tmp_path / name).rglob("*") if path.is_file()]
    assert not any(b"se%" in path.read_bytes() for path in places)
    assert "se%" not in f"{told} {provided}"


def test_a_requirements_file_may_hold_the_login(server: Server, tmp_path: Path, store: Store) -> None:
    server.publish(make_wheel(tmp_path, "alpha", "1.0"))
    project = private_project(server, tmp_path / "study", "alpha")
    pinned = uv("export", "--quiet", "--no-header", "--no-emit-project", cwd=project)
    url = server.url.replace("//", "//ada:se%25cret@")
    (tmp_path / "requirements.txt").write_text(f"--index-url {url}/simple\n{pinned}")
    spec = UvEnvironment(requirements=str(tmp_path / "requirements.txt"), python=sys_executable())
    assert provide(request_for(spec), store).manifest["packages"] == {"alpha": "1.0"}


def test_what_a_member_is_built_with_may_be_private_too(
    server: Server, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.publish(make_wheel(tmp_path, "alpha", "1.0"))
    one = make_package(tmp_path / "study" / "packages" / "one", "one", version=VERSION)
    text = (one / "pyproject.toml").read_text()
    (one / "pyproject.toml").write_text(text.replace(BACKEND, BACKEND.replace("[]", '["alpha"]', 1)))
    code = (one / "backend.py").read_text()
    (one / "backend.py").write_text(f"import alpha\n{code}")
    more = '[tool.uv.workspace]\nmembers = ["packages/*"]\n[tool.uv.sources]\none = {workspace = true}\n'
    project = private_project(server, tmp_path / "study", "one", more=more)
    with pytest.raises(EnvironmentFailedError, match=r"(?s)one: no wheel can be built: .*401 Unauthorized"):
        provide(uv_request(project), store)
    give_login("variables", server, project, monkeypatch)
    assert provide(uv_request(project), store).manifest["packages"] == {"one": "2.5"}


def test_a_package_inside_of_a_private_archive(
    server: Server, tmp_path: Path, index: Path, store: Store
) -> None:
    inner = make_package(tmp_path / "src-1" / "sub" / "dir", "deep", version=VERSION)
    with tarfile.open(server.folder / "src-1.tar.gz", "w:gz") as archive:
        archive.add(inner.parents[1], "src-1")
    server.login, url = "ada:se%cret", server.url.replace("//", "//ada:se%25cret@")
    more = f'[tool.uv.sources]\ndeep = {{url = "{url}/src-1.tar.gz", subdirectory = "sub/dir"}}\n'
    project = make_project(tmp_path / "study", index, "deep", more=more, offline=False)
    provided = provide(uv_request(project), store)
    assert provided.manifest["packages"] == {"deep": "2.5"}
    assert provided.manifest["artifacts"][0][2].endswith(", sub/dir")


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("https://x.invalid/a/files/one.whl", "of-a"),
        ("https://x.invalid:443/b/files/one.whl", "of-b"),
        ("https://x.invalid/c/one.whl", "of-a"),
        ("http://x.invalid/a/files/one.whl", None),
        ("https://x.invalid:8443/a/files/one.whl", None),
        ("https://y.invalid/a/files/one.whl", None),
    ],
)
def test_of_several_logins_for_a_server_the_nearest_counts(
    url: str, user: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_INDEX", "https://of-a@x.invalid/a/simple https://of-b@x.invalid/b/simple")
    found = login_for(url, str(tmp_path / "uv.lock"))
    assert (found.user if found else None) == user


def test_settings_that_can_t_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "uv.toml").write_text("index = [")
    with pytest.raises(EnvironmentFailedError, match=r"uv.toml: can't be read: "):
        login_for("https://x.invalid/one.whl", str(tmp_path / "uv.lock"))
