"""Bundles, a fake sbatch and squeue, and the hosts that satellite tests run on."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from subprocess_dialer import SubprocessDialer
from waiting import PATIENCE

from dagster_slurm_components.hosts.base import Host
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.satellite.calls import SubmitRequest

HOSTILE = (
    "a b",
    "it's",
    'say "x"',
    "$(touch pwned);`id`",
    "line\nbreak",
    "tab\there",
    "grün-漢字",
    "-rf",
    "*?[x]",
    "back\\slash",
    "undecodable-\udcff",
)
"""Names that a shell, a line reader or an encoding might stumble over."""


def bundle(files: Mapping[str, bytes | str], *, executable: tuple[str, ...] = (), mode: str = "w") -> bytes:
    """Return a tar of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, errors="surrogateescape") as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mode = 0o755 if name in executable else 0o644
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def old_python() -> str | None:
    """Return a Python 3.6, the oldest that the satellite must run on, if this machine has one."""
    # pyenv's own folder before PATH: its shims are there for versions that are not switched on, too.
    versions = Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))) / "versions"
    installed = [str(path) for path in sorted(versions.glob("3.6.*/bin/python"))]
    candidates = [os.environ.get("DAGSTER_SLURM_OLD_PYTHON"), *installed, shutil.which("python3.6")]
    return next((path for path in candidates if path), None)


OLD_PYTHON = old_python()


class FakeSlurm:
    """Scripts that stand for sbatch and squeue, and the list of the jobs they made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs_file = folder / "jobs"
        self.jobs_file.touch()
        self.sbatch = str(folder / "sbatch")
        self.squeue = str(folder / "squeue")
        self.script("squeue", 'sed "s/$/|token/" jobs')
        self.script("sbatch", "echo $$ >>jobs; echo $$")

    def script(self, name: str, body: str) -> None:
        """Let a command do something else; it runs in ``folder``, with its job folder in ``$HERE``."""
        path = self.folder / name
        path.write_text(f'#!/bin/sh\nHERE=$PWD\ncd "{self.folder}"\n{body}\n')
        path.chmod(0o755)

    def jobs(self) -> list[str]:
        return self.jobs_file.read_text().split()

    def request(self, workdir: Path, **changes: object) -> SubmitRequest:
        request = SubmitRequest(
            run_dir=f"{workdir}/runs/r1/step/1",
            workdir=str(workdir),
            token="t1",
            mode="command",
            argv=(self.sbatch, "job.sh"),
            lookups=((self.squeue,),),
            ambiguous=("Socket timed out",),
            window=0,
            command_timeout=PATIENCE,
        )
        return request._replace(**changes)  # type: ignore[arg-type]


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    folder = tmp_path / "fake slurm"
    folder.mkdir()
    return FakeSlurm(folder)


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return tmp_path / "work dir"


@pytest.fixture
def local() -> Satellite:
    return Satellite(InProcessHost())


def _hosts() -> list[object]:
    reason = "no Python 3.6 on this machine (name one in DAGSTER_SLURM_OLD_PYTHON)"
    return [
        "in-process",
        "this-python",
        pytest.param("python-3.6", marks=pytest.mark.skipif(OLD_PYTHON is None, reason=reason)),
    ]


@pytest.fixture(params=_hosts())
def satellite(request: pytest.FixtureRequest) -> Iterator[Satellite]:
    """The same operations in-process, and in a subprocess of this and of the oldest Python in the C locale."""
    host: Host
    if request.param == "in-process":
        host = InProcessHost()
    else:
        python = sys.executable if request.param == "this-python" else str(OLD_PYTHON)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))
        }
        host = RemoteHost(SubprocessDialer(python, env=environment | {"LC_ALL": "C"}))
    yield Satellite(host)
    host.close()
