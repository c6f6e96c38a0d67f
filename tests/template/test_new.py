"""`dg-slurm new`, and answers that are refused."""

from __future__ import annotations

from waiting import PATIENCE
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from template_fixture import ROOT, answers, render

from dagster_slurm_components.cli.main import main
from dagster_slurm_components.spec.project import check_project


def new(*argv: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["new", *argv])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, done.output


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_same_as_copier_copy(tmp_path: Path) -> None:
    assert new("my-project", "--defaults", "-d", "workload=bash")[0] == 0
    other = render(tmp_path / "other", project_name="my-project", workload="bash", package_source=str(ROOT))
    files = {path.relative_to(other): path.read_bytes() for path in other.rglob("*") if path.is_file()}
    made = Path("my-project")
    ours = {path.relative_to(made): path.read_bytes() for path in made.rglob("*") if path.is_file()}
    remembered = Path(".copier-answers.yml")
    del files[remembered], ours[remembered]
    assert ours == files
    assert check_project([made]).problems == ()


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Wind Tunnel", "wind-tunnel"),
        ("my_project", "my-project"),
        ("2024", "my-hpc-project"),
        ("ümläut", "ml-ut"),
    ],
)
def test_the_folder_names_the_project(folder: str, name: str) -> None:
    assert new(folder, "--defaults")[0] == 0
    assert answers(Path(folder))["project_name"] == name


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("project_name=My Project", "small letters, digits and single dashes"),
        ("project_name=-x", "small letters, digits and single dashes"),
        ("project_name=", "small letters, digits and single dashes"),
        ("package_name=my-package", "small letters, digits and underscores"),
        ("package_name=class", "class is a word of Python's own"),
        ("package_name=torch", "torch is taken"),
        ("workload=rays", "`rays` is no answer to `workload`; write one of"),
        ("environment=docker", "`docker` is no answer to `environment`; write one of"),
        ("production_site=leonrado", "`leonrado` is no answer to `production_site`; write one of"),
        ("production_hostname=ada@login.example.org", "without a user"),
        ("production_hostname=login.example.org:ssh", "with a port"),
        ("production_hostname=", "Write a host name"),
        ("production_user=ada; rm -rf /", "Write a user name"),
        ("production_partition=gpu cpu", "several separated by commas"),
        ("production_account=$(id)", "as sbatch takes it"),
        ("production_folder=scratch", "absolute path"),
        ("production_folder=/scratch/{{ 1 }}", "absolute path"),
        ('production_folder=/scratch/"x', "absolute path"),
        ("wrkload=ray", "there is no question `wrkload`\ndid you mean `workload`?"),
        ("site_facts={}", "there is no question `site_facts`"),
        ("workload", "is not NAME=VALUE"),
    ],
)
def test_a_wrong_answer_is_refused_with_a_sentence(answer: str, sentence: str) -> None:
    code, said = new("p", "--defaults", "-d", answer)
    assert code == 1
    assert sentence in said
    assert "Traceback" not in said
    assert not Path("p").exists()


@pytest.mark.parametrize(
    ("environment", "answer", "sentence"),
    [
        ("modules", "modules=gcc; rm", "separated by commas"),
        ("modules", "modules=", "separated by commas"),
        ("container", "image=a b", "docker://python"),
        ("container", "image=", "docker://python"),
        ("container", "workload=torchrun", "torchrun can't start scripts inside containers"),
        ("container", "workload=ray", "choose uv, pixi or modules"),
    ],
)
def test_what_an_environment_needs(environment: str, answer: str, sentence: str) -> None:
    code, said = new("p", "--defaults", "-d", f"environment={environment}", "-d", answer)
    assert code == 1
    assert sentence in said


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.tex").write_text("mine")
    code, said = new("p", "--defaults")
    assert code == 1
    assert "p is there already, and not an empty folder" in said
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["thesis.tex"]


def test_without_copier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "copier", None)
    code, said = new("p", "--defaults")
    assert code == 1
    assert "pip install 'dagster-slurm-components[new]'" in said


def test_a_wrong_answer_at_copiers_own_prompt(tmp_path: Path) -> None:
    """`copier copy` asks again, with the sentence, until the answer is right."""
    copier = Path(sys.executable).with_name("copier")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    asking = subprocess.Popen(
        [str(copier), "copy", str(ROOT), str(tmp_path / "p")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        start_new_session=True,
    )
    os.close(theirs)
    shown = ""

    def until(words: str) -> None:
        nonlocal shown
        deadline = time.monotonic() + PATIENCE
        while words not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 65536).decode(errors="replace")

    try:
        until("Name of the project")
        os.write(ours, b"\x15My Project\r")  # Ctrl-U takes the default away
        until("Use small letters, digits and single dashes")
        os.write(ours, b"\x15wind-tunnel\r")
        until("wind_tunnel")  # the next question's default
        os.write(ours, b"\x03")
        until("stopped by user")
        assert asking.wait(PATIENCE) == 1
    finally:
        if asking.poll() is None:
            asking.kill()
            asking.wait()
        os.close(ours)
    assert "Traceback" not in shown
    assert not (tmp_path / "p").exists()
