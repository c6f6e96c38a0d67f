"""Packages that a lock takes from git: built here, at exactly that commit, sent and imported for real."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from package_fixture import make_project, request_for, sys_executable, uv_request
from source_fixture import VERSION, commit, git, make_package
from web_fixture import Server

from dagster_slurm_components.environments.content import Interpreter, Platform, silent
from dagster_slurm_components.environments.plan import Provided
from dagster_slurm_components.environments.provide import plan_for, provide
from dagster_slurm_components.environments.pylock import LockedPackage, locked_commit
from dagster_slurm_components.environments.sources import built
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.errors import EnvironmentFailedError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.spec.environments import UvEnvironment

PYTHON = Interpreter(sys.executable, platform.python_version())
HERE = Platform("linux", platform.machine(), "glibc", (2, 31))
COMPILED = 'f"{MINOR}-{MINOR}-linux_" + __import__("os").uname().machine'

pytestmark = pytest.mark.usefixtures("own_cache", "own_git")


@pytest.fixture
def own_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own settings of git, and what is logged in with, are of this test alone."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    # Submodules by file:// are what git refuses by default.
    (tmp_path / ".gitconfig").write_text(
        "[protocol.file]\nallow = always\n[gc]\nauto = 0\n[maintenance]\nauto = false\n"
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Satellite(InProcessHost()), str(tmp_path / "work"), "staging")


def says(provided: Provided, code: str) -> str:
    argv = [f"{provided.folder}/prefix/bin/python", "-I", "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def sources(**each: str) -> str:
    return "[tool.uv.sources]\n" + "".join(f"{name} = {{{source}}}\n" for name, source in each.items())


def line_of(lock: Path, text: str) -> int:
    return next(number for number, line in enumerate(lock.read_text().splitlines(), 1) if text in line)


def test_a_commit_is_built_once_and_is_the_same_from_wherever_it_comes(
    tmp_path: Path, index: Path, store: Store
) -> None:
    origin = make_package(tmp_path / "origin", "here", version=VERSION)
    make_package(origin / "sub" / "dir", "deep", version=VERSION)
    at, url = commit(origin), origin.as_uri()
    more = sources(here=f'git = "{url}", branch = "main"', deep=f'git = "{url}", subdirectory = "sub/dir"')
    project = make_project(tmp_path / "study", index, "here", "deep", "alpha==1.0", more=more)
    # What the branch is now is not what is locked.
    (origin / "here" / "__init__.py").write_text("VALUE = 2\n")
    commit(origin)
    provided = provide(uv_request(project), store)
    assert says(provided, "import here, deep, alpha; print(here.VALUE, deep.VALUE)") == "1 1"
    assert provided.manifest["packages"] == {"alpha": "1.0", "deep": "2.5", "here": "2.5"}
    made = {name: identity for name, _, identity in provided.manifest["artifacts"]}
    assert made["here-2.5-py3-none-any.whl"] == at
    assert made["deep-2.5-py3-none-any.whl"] == f"{at}, sub/dir"
    origin.rename(tmp_path / "gone")  # it is here now
    assert plan_for(uv_request(project), store).key == provided.manifest["key"]
    for file in (project / "pyproject.toml", project / "uv.lock"):
        file.write_text(file.read_text().replace(url, (tmp_path / "gone").as_uri()))
    assert plan_for(uv_request(project), store).key == provided.manifest["key"]


def test_submodules_come_along(tmp_path: Path, index: Path, store: Store) -> None:
    part = tmp_path / "part"
    part.mkdir()
    (part / "__init__.py").write_text("VALUE = 'of the submodule'\n")
    commit(part)
    origin = make_package(tmp_path / "origin", "here", version=VERSION)
    commit(origin)
    git(origin, "submodule", "--quiet", "add", part.as_uri(), "here/part")
    commit(origin)
    more = sources(here=f'git = "{origin.as_uri()}"')
    provided = provide(uv_request(make_project(tmp_path / "study", index, "here", more=more)), store)
    assert says(provided, "import here.part; print(here.part.VALUE)") == "of the submodule"


def test_a_commit_that_no_branch_has_any_more(tmp_path: Path, index: Path, store: Store) -> None:
    origin = make_package(tmp_path / "origin", "here", version=VERSION)
    commit(origin)
    more = sources(here=f'git = "{origin.as_uri()}"')
    project = make_project(tmp_path / "study", index, "here", more=more)
    (origin / "here" / "__init__.py").write_text("VALUE = 2\n")
    git(origin, "commit", "--quiet", "--all", "--amend", "--message=two")
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
    assert says(provide(uv_request(project), store), "import here; print(here.VALUE)") == "1"


def test_files_of_git_lfs_come_where_the_lock_says_so(
    tmp_path: Path, index: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in, that takes what git-lfs is told to do down, and puts a file there."""
    programs, log = tmp_path / "bin", tmp_path / "called"
    programs.mkdir()
    stand_in = f'#!/bin/sh\necho "$*" >>{log}\n[ "$1" != pull ] || echo "VALUE = 5" >here/__init__.py\n'
    (programs / "git-lfs").write_text(stand_in)
    (programs / "git-lfs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    origin = make_package(tmp_path / "origin", "here", version=VERSION)
    commit(origin)
    plain = make_project(tmp_path / "plain", index, "here", more=sources(here=f'git = "{origin.as_uri()}"'))
    large = make_project(
        tmp_path / "large", index, "here", more=sources(here=f'git = "{origin.as_uri()}", lfs = true')
    )
    log.write_text("")
    assert says(provide(uv_request(plain), store), "import here; print(here.VALUE)") == "1"
    assert log.read_text() == ""
    assert says(provide(uv_request(large), store), "import here; print(here.VALUE)") == "5"
    assert log.read_text() == "install --local\npull\n"


def test_a_commit_in_a_requirements_file(
    tmp_path: Path, index: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = make_package(tmp_path / "origin" / "python", "here", version=VERSION).parent
    at = commit(origin)
    (tmp_path / "requirements.txt").write_text(f"here @ git+{origin.as_uri()}@{at}#subdirectory=python\n")
    spec = UvEnvironment(requirements=str(tmp_path / "requirements.txt"), python=sys_executable())
    with monkeypatch.context() as in_a_hook:
        in_a_hook.setenv("GIT_DIR", str(tmp_path / "users"))
        in_a_hook.setenv("GIT_INDEX_FILE", str(tmp_path / "users" / "index"))
        provided = provide(request_for(spec), store)
    assert says(provided, "import here; print(here.VALUE)") == "1"
    (tmp_path / "requirements.txt").write_text(f"here @ git+{origin.as_uri()}@main\n")
    with pytest.raises(EnvironmentFailedError, match=r"requirements.txt:1: .* is not pinned to one version"):
        provide(request_for(spec), store)


def test_what_can_t_be_had_or_built_is_named_with_its_line(tmp_path: Path, index: Path, store: Store) -> None:
    origin = make_package(tmp_path / "origin", "here", version=VERSION)
    (origin / "backend.py").open("a").write(
        "def build_wheel(*args, **more):\n    raise OSError('no compiler')\n"
    )
    make_package(origin / "sub", "other", version=VERSION)
    at, url = commit(origin), origin.as_uri()
    more = sources(here=f'git = "{url}"', other=f'git = "{url}", subdirectory = "sub"')
    project = make_project(tmp_path / "study", index, "here", "other", more=more)
    lock = project / "uv.lock"
    line = line_of(lock, 'name = "here"') + 2
    assert f'git = "{url}#{at}"' in lock.read_text().splitlines()[line - 1]
    with pytest.raises(EnvironmentFailedError) as caught:
        provide(uv_request(project), store)
    text = str(caught.value)
    assert f"{lock}:{line}: here (commit {at} of {url}): no wheel can be built" in text
    assert "no compiler" in text
    assert "`uv build --wheel` of it must succeed" in text
    origin.rename(tmp_path / "gone")
    with pytest.raises(EnvironmentFailedError) as caught:
        provide(uv_request(project), store)
    text = str(caught.value)
    assert f"{lock}:{line}: here (commit {at} of {url}) can't be had: git says: fatal: " in text
    assert f"`git ls-remote {url}` must succeed" in text


def test_a_build_that_gives_another_package_is_refused(tmp_path: Path, index: Path) -> None:
    origin = make_package(tmp_path / "origin", "here", version=VERSION)
    found = make(tmp_path, "other", origin, commit(origin))
    with pytest.raises(EnvironmentFailedError, match=r"gave a wheel of another package, here-2.5"):
        built(found, PYTHON, HERE, silent)
    inside = dataclasses.replace(found.file, subdirectory="nowhere")
    with pytest.raises(EnvironmentFailedError, match=r"lock:1: other \(commit .*\) has no folder nowhere"):
        built(LockedPackage("other", inside), PYTHON, HERE, silent)


def make(tmp_path: Path, name: str, origin: Path, at: str) -> LockedPackage:
    lock = tmp_path / "some.lock"
    lock.write_text(f"{name} {at}\n")
    return LockedPackage(name, locked_commit(lock, name, origin.as_uri(), at))


def test_what_is_compiled_here_is_refused_where_it_would_not_run(tmp_path: Path) -> None:
    origin = make_package(tmp_path / "origin", "here", version=VERSION, tag=COMPILED)
    (origin / "here" / "lib.so").write_bytes(b"\x7fELF..GLIBC_2.4\0GLIBC_2.34\0..")
    found = make(tmp_path, "here", origin, commit(origin))
    new = dataclasses.replace(HERE, libc_version=(2, 34))
    assert built(found, PYTHON, new, silent).name.startswith("here-2.5-cp")
    arm = Platform("linux", "riscv64", "glibc", (2, 39))
    musl = dataclasses.replace(HERE, libc="musl", libc_version=(1, 2))
    for host, why in (
        (HERE, r"needs glibc 2.34, and the host is linux \S+ \(glibc 2.31\)"),
        (musl, r"needs glibc 2.34, and the host is linux \S+ \(musl 1.2\)"),
        (arm, r"is here-2.5-cp.*whl, and the host is linux riscv64"),
    ):
        with pytest.raises(
            EnvironmentFailedError, match=rf"some.lock:1: here .* compiled: .* {why}"
        ) as caught:
            built(found, PYTHON, host, silent)
        assert 'write here = {path = "FILE.whl"}' in str(caught.value)


def test_what_is_compiled_is_built_by_the_host_s_kind_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    origin = make_package(tmp_path / "origin", "here", version=VERSION, tag=COMPILED)
    found = make(tmp_path, "here", origin, commit(origin))
    with pytest.raises(
        EnvironmentFailedError,
        match=r"(?s)no wheel can be built by Python 3\.99, as .*found for Python 3\.99",
    ):
        built(found, Interpreter("/opt/python", "3.99.1"), HERE, silent)


def test_a_pure_package_needs_no_python_of_the_host_s_kind(tmp_path: Path) -> None:
    origin = make_package(tmp_path / "origin", "here", version=VERSION)
    found = make(tmp_path, "here", origin, commit(origin))
    arm = Platform("linux", "aarch64", "glibc", (2, 17))
    assert built(found, Interpreter("/opt/python", "3.99.1"), arm, silent).name == "here-2.5-py3-none-any.whl"


def serve(server: Server, origin: Path) -> str:
    """Serve a repository as a folder of files, and return its address."""
    git(origin, "clone", "--quiet", "--bare", str(origin), str(server.folder / "here.git"))
    git(server.folder / "here.git", "update-server-info")
    return f"{server.url}/here.git"


LOGINS = ["netrc", "url of the source", "variables of an index on the same server", "git's own helper"]


@pytest.mark.parametrize("way", LOGINS)
def test_a_private_repository_and_nobody_reads_its_password(
    way: str, server: Server, tmp_path: Path, index: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = make_package(tmp_path / "origin", "here", version=VERSION)
    commit(origin)
    url = serve(server, origin)
    monkeypatch.delenv("UV_OFFLINE")  # its only server is the one on loopback
    more = sources(here=f'git = "{url}"')
    project = make_project(tmp_path / "study", index, "here", more=more, offline=False)
    server.login, login = "ada:se%cret", "ada:se%25cret"
    if way == "netrc":
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password se%cret\n")
    elif way == "url of the source":
        file = project / "pyproject.toml"
        file.write_text(file.read_text().replace(server.url, server.url.replace("//", f"//{login}@")))
    elif way == "variables of an index on the same server":
        monkeypatch.setenv("UV_INDEX", f"my-index={server.url}/simple")
        monkeypatch.setenv("UV_INDEX_MY_INDEX_USERNAME", "ada")
        monkeypatch.setenv("UV_INDEX_MY_INDEX_PASSWORD", "se%cret")
    else:
        (tmp_path / "kept").write_text(f"{server.url.replace('//', f'//{login}@')}\n")
        helper = f"[credential]\nhelper = store --file={tmp_path / 'kept'}\n"
        (tmp_path / ".gitconfig").open("a").write(helper)
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))  # with the arguments of all that git starts
    told: list[str] = []
    provided = provide(uv_request(project), store, tell=told.append)
    assert says(provided, "import here; print(here.VALUE)") == "1"
    trace = (tmp_path / "trace").read_text()
    assert f"remote-http origin {url}" in trace
    kept = [
        path.read_bytes()
        for place in ("cache", "work")
        for path in (tmp_path / place).rglob("*")
        if path.is_file()
    ]
    for text in (trace, *told, str(provided), str(plan_for(uv_request(project), store))):
        assert "se%" not in text
    assert not any(b"se%cret" in data or b"se%25cret" in data for data in kept)


def test_a_login_that_is_wrong_is_told_of_without_it(
    server: Server, tmp_path: Path, index: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = make_package(tmp_path / "origin", "here", version=VERSION)
    at = commit(origin)
    url = serve(server, origin)
    monkeypatch.delenv("UV_OFFLINE")
    project = make_project(
        tmp_path / "study", index, "here", more=sources(here=f'git = "{url}"'), offline=False
    )
    server.login = "ada:s3cret"
    file = project / "pyproject.toml"
    file.write_text(file.read_text().replace("//127", "//ada:n0ne@127"))
    with pytest.raises(EnvironmentFailedError) as caught:
        provide(uv_request(project), store)
    text = str(caught.value)
    line = line_of(project / "uv.lock", f"#{at}")
    assert f"uv.lock:{line}: here (commit {at} of {url}) can't be had: git says: fatal: Auth" in text
    assert "logins come from ~/.netrc" in text
    assert "n0ne" not in text
