"""What happens where Debian packages are missing; apt-get and sudo are stand-ins."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm_testcluster import packages
from slurm_testcluster.errors import ClusterError, ClusterUnavailableError

MakeProgram = Callable[[str, str], Path]


@pytest.fixture
def make_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeProgram:
    """Return what makes a shell program in an otherwise empty PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(packages, "SEARCH_PATH", str(folder))

    def make(name: str, body: str = "exit 0") -> Path:
        file = folder / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)
        return file

    return make


def make_all(make_program: MakeProgram) -> None:
    for program in packages.PACKAGES.values():
        make_program(program, "exit 0")


def test_nothing_is_done_when_all_is_there(make_program: MakeProgram) -> None:
    make_all(make_program)
    lines: list[str] = []
    packages.ensure_packages(install=True, report=lines.append)
    assert lines == []


def test_not_allowed_to_install_names_the_command(make_program: MakeProgram) -> None:
    make_all(make_program)
    Path(packages.find_program("munged")).unlink()
    with pytest.raises(ClusterUnavailableError, match=r"packages are missing: munge\n.*sudo apt-get install"):
        packages.ensure_packages(install=False, report=print)


def test_no_apt_get_says_where_it_works(make_program: MakeProgram) -> None:
    with pytest.raises(ClusterUnavailableError, match="Debian and Ubuntu"):
        packages.ensure_packages(install=True, report=print)


def test_no_root_and_no_sudo_says_so(make_program: MakeProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    make_program("apt-get", "exit 0")
    with pytest.raises(ClusterUnavailableError, match="takes root, or sudo without a password"):
        packages.ensure_packages(install=True, report=print)
    make_program("sudo", "exit 1")
    with pytest.raises(ClusterUnavailableError, match="takes root, or sudo without a password"):
        packages.ensure_packages(install=True, report=print)


def test_sudo_runs_the_installer_and_progress_is_seen(
    make_program: MakeProgram, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    make_program("apt-get", "exit 0")
    bin_folder = make_program("sudo", "exit 0").parent
    programs = " ".join(packages.PACKAGES.values())
    # The stand-in "installs" by making the programs, when it is called with more than `-n true`.
    make_program(
        "sudo",
        f'[ "$2" = true ] && exit 0\nprintf "%s " "$@" >{tmp_path}/called\nfor p in {programs}; do\n'
        f"  printf '#!/bin/sh\\n' >{bin_folder}/$p; /bin/chmod 755 {bin_folder}/$p\ndone\n"
        "echo Setting up munge",
    )
    lines: list[str] = []
    packages.ensure_packages(install=True, report=lines.append)
    assert lines == ["Setting up munge"]
    called = (tmp_path / "called").read_text().split()
    assert called[:3] == ["-n", "/bin/sh", str(packages.INSTALL)]
    assert set(called[3:]) == {*packages.PACKAGES, *packages.PLUGINS}


def test_failed_installation_shows_the_end_of_its_output(
    make_program: MakeProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    make_program("apt-get", "exit 0")
    make_program("sudo", '[ "$2" = true ] && exit 0\necho "E: Unable to locate package slurmd"\nexit 100')
    with pytest.raises(ClusterError, match=r"Unable to locate package slurmd(.|\n)*apt-get update"):
        packages.ensure_packages(install=True, report=lambda line: None)


@pytest.mark.parametrize(
    ("said", "version"),
    [("slurm-wlm 22.05.8", (22, 5)), ("slurm 24.11.5-1", (24, 11)), ("slurm 26.05.0-0rc1", (26, 5))],
)
def test_the_version_of_slurm(make_program: MakeProgram, said: str, version: tuple[int, int]) -> None:
    make_program("slurmd", f"echo '{said}'")
    assert packages.slurm_version() == version


def test_a_slurm_that_names_no_version(make_program: MakeProgram) -> None:
    make_program("slurmd", "echo no >&2")
    with pytest.raises(ClusterError, match="names no version: no"):
        packages.slurm_version()


def test_what_can_not_be_installed_for_some_tests_costs_the_others_nothing(
    make_program: MakeProgram,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "scripts"))
    script = importlib.import_module("slurm_packages")
    make_all(make_program)
    make_program("apt-get")
    installer = tmp_path / "install.sh"
    installer.write_text(
        f'echo "$@" >>{tmp_path}/asked\n'
        'if [ "$1" = chromium ]; then echo "E: you have held broken packages"; exit 100; fi\n'
    )
    for name, value in {"PROGRAMS": {}, "INSTALL": installer}.items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["slurm_packages.py", "--optional"])
    script.main()
    assert (tmp_path / "asked").read_text().splitlines() == ["chromium chromium-driver", "gdb"]
    told = capsys.readouterr()
    assert told.err == "tests in a browser will be skipped: E: you have held broken packages\n"
    assert "installing packages for the test of a real debugpy: gdb" in told.out
