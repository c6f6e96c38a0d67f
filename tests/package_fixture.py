"""Small real packages, a folder that serves as their index, and projects with a real ``uv.lock`` of them.

Use it by ``from package_fixture import index, own_cache  # noqa: F401``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dagster_slurm_components.environments.content import HostPlatform, Request
from dagster_slurm_components.environments.machine import find_uv
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.spec.environments import EnvironmentSpec, UvEnvironment


def _record_line(path: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(data)}\n"


def make_wheel(
    folder: Path, name: str, version: str, files: dict[str, bytes] | None = None, *, tag: str = "py3-none-any"
) -> Path:
    """Write a wheel with a package of that name; ``files`` are further files of it."""
    info = f"{name}-{version}.dist-info"
    script = b"[console_scripts]\n%s-says = %s:say\n" % (name.encode(), name.encode())
    content = {
        f"{name}/__init__.py": f"VERSION = {version!r}\ndef say():\n    print({name!r}, VERSION)\n".encode(),
        f"{name}/part.py": b"VALUE = 1\n",
        **{f"{name}/{path}": data for path, data in (files or {}).items()},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        f"{info}/entry_points.txt": script,
    }
    record = "".join(_record_line(path, data) for path, data in content.items()) + f"{info}/RECORD,,\n"
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for each, data in [*content.items(), (f"{info}/RECORD", record.encode())]:
            archive.writestr(zipfile.ZipInfo(each, (2020, 1, 1, 0, 0, 0)), data)
    return path


def uv(*argv: str, cwd: Path) -> str:
    done = subprocess.run([find_uv()[0], *argv], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_project(
    folder: Path, index: Path, *dependencies: str, name: str = "study", more: str = "", offline: bool = True
) -> Path:
    """Write or rewrite a project and lock it."""
    folder.mkdir(exist_ok=True)
    listed = ", ".join(repr(dependency) for dependency in dependencies)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "0.1"\nrequires-python = ">=3.10"\ndependencies = [{listed}]\n'
        f'[[tool.uv.index]]\nname = "tests"\nurl = "{index}"\nformat = "flat"\ndefault = true\n{more}'
    )
    uv("lock", "--quiet", *(["--offline"] if offline else []), cwd=folder)
    return folder


def request_for(spec: EnvironmentSpec, base: Path = Path("/")) -> Request[EnvironmentSpec]:
    return Request(spec, lambda field: base)


def uv_request(project: Path, **options: object) -> Request[EnvironmentSpec]:
    # The interpreter of the tests: what `python3` on PATH is, is this machine's own affair.
    options.setdefault("python", sys.executable)
    return request_for(UvEnvironment.model_validate({"project": str(project), **options}))


def make_index(folder: Path) -> Path:
    """Write a folder with wheels of alpha 1.0 and 1.1, beta 2.0 and gamma 3.0."""
    folder.mkdir()
    for name, version in (("alpha", "1.0"), ("alpha", "1.1"), ("beta", "2.0"), ("gamma", "3.0")):
        make_wheel(folder, name, version)
    return folder


def use_own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a cache in this folder be used, with uv itself in it; made-up packages are looked up nowhere."""
    cache = folder / "cache"
    for variable in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("DAGSTER_SLURM_CACHE", str(cache))
    monkeypatch.setenv("UV_CACHE_DIR", str(folder / "uv-cache"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    put_uv_into(cache, folder)
    return cache


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder with wheels of alpha 1.0 and 1.1, beta 2.0 and gamma 3.0."""
    return make_index(tmp_path / "index")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test alone, with uv itself in it as if fetched."""
    return use_own_cache(tmp_path, monkeypatch)


def put_uv_into(cache: Path, workdir: Path) -> None:
    program, version = find_uv()
    answer = Store(Satellite(InProcessHost()), str(workdir)).call("probe", {"python": sys.executable})
    platform = HostPlatform.read(answer, str(workdir)).platform
    tools = cache / "tools"
    tools.mkdir(parents=True)
    target = tools / f"uv-{version}-{platform.system}-{platform.machine}-{platform.libc}"
    try:
        target.hardlink_to(program)
    except OSError:
        shutil.copyfile(program, target)


def sys_executable() -> str:
    """Return the interpreter of the tests, as a user would write it into YAML."""
    return sys.executable
