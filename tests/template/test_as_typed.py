"""The commands of a new project's README, typed one after the other by somebody who has Python, git and uv.

One folder and one virtual environment serve all projects: uv makes of it what each needs.
"""

from __future__ import annotations

from waiting import PATIENCE
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from ports import free_port
from template_fixture import ROOT, render, template_copy
from wheel_fixture import Built, Newcomer

pytestmark = pytest.mark.slow

HERE = "## Run it here"
SCAFFOLD = "## Where things are"
SCHEMA = re.compile(r"# yaml-language-server: \$schema=(\S+)")


def commands(file: Path, heading: str) -> list[str]:
    """Return what is typed in the first console block below a heading, without comments."""
    block = file.read_text().partition(f"\n{heading}\n")[2].partition("```console\n")[2].partition("```")[0]
    found = [line[2:].partition(" #")[0].strip() for line in block.splitlines() if line.startswith("$ ")]
    assert found, f"{file}: nothing to type under {heading}"
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where projects are made, one after the other."""
    return tmp_path_factory.mktemp("typed") / "my-project"


@pytest.fixture
def make(place: Path, built: Built, tmp_path: Path) -> Callable[..., Path]:
    """Make a project with these answers, in the place of the one before, whose virtual environment stays."""
    source = template_copy(tmp_path / "template only")

    def made(**data: str) -> Path:
        for file in place.iterdir() if place.exists() else ():
            if file.name != ".venv":
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        return render(place, source=source, package_source=str(built.wheel), **data)

    return made


def repository(folder: Path) -> Path:
    """Make a repository of this one's files as they are now, with its version's tag."""
    listed = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    for name in subprocess.run(
        listed, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    # Nothing may be packed in the background while somebody clones it.
    who = ("-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for argv in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", "all"), (*who, "tag", "v0.2.0")):
        subprocess.run(["git", *argv], cwd=folder, check=True, capture_output=True)
    return folder


def assert_made(said: str, *assets: str) -> None:
    assert "RUN_SUCCESS" in said, said[-8000:]
    for asset in assets:
        assert f"Materialized value {asset}." in said, said[-8000:]


@contextmanager
def browser(line: str, project: Path, newcomer: Newcomer) -> Iterator[int]:
    """Run `dg dev` at a free port; end it and what it started."""
    port = free_port()
    log = project.with_name("dev.log")
    with log.open("w") as out:
        server = subprocess.Popen(
            ["bash", "-c", f"{line} --host 127.0.0.1 --port {port}"],
            cwd=project,
            env=newcomer.environment(),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            server.wait(PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def runs_shown(port: int) -> list[str]:
    """Return the states of the runs that the browser shows, once it shows anything."""
    body = json.dumps({"query": "{runsOrError {... on Runs {results {status}}}}"}).encode()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
                return [run["status"] for run in json.load(answer)["data"]["runsOrError"]["results"]]
        except OSError:
            assert time.monotonic() < deadline, "the browser's page did not come up"
            time.sleep(0.5)


def test_three_commands_from_the_repository(place: Path, newcomer: Newcomer, tmp_path: Path) -> None:
    """`uvx copier copy REPOSITORY`, `cd`, and all that the README says; the package comes from the repository, too."""
    source = repository(tmp_path / "engine")
    tutorial = commands(ROOT / "docs" / "tutorials" / "new-project.md", "## Three commands")
    copy, cd, launch = tutorial
    copy = re.sub(r"https://\S+", f"{source}/.git", copy)
    newcomer.types(f"{copy} --quiet", place.parent)
    assert cd == f"cd {place.name}"
    pyproject = (place / "pyproject.toml").read_text()
    assert f'{{git = "file://{source}/.git", rev = "v0.2.0"}}' in pyproject

    readme = commands(place / "README.md", HERE)
    assert readme[0] == launch
    done = newcomer.types(launch, place)
    assert_made(done.stdout + done.stderr, "first", "summary")
    assert set(json.loads((place / ".dagster-slurm/data/first.json").read_text())) == {
        "host",
        "python",
        "cpus",
    }
    for line in readme[1:]:
        if line.endswith(" dg dev"):
            with browser(line, place, newcomer) as port:
                assert runs_shown(port) == ["SUCCESS"]
        else:
            newcomer.types(line, place)
    (scaffold,) = commands(place / "README.md", SCAFFOLD)
    newcomer.types(scaffold, place)
    done = newcomer.types("uv run dg launch --assets second", place)
    assert_made(done.stdout + done.stderr, "second")
    rendered = newcomer.types(
        "uv run dg-slurm render second --profile production --json", place, HPC_USER="ada"
    )
    assert '"uv"' in rendered.stdout, "what the profile says of software holds for the second script, too"
    editors_find_schemas(place)
    nothing_for_git(place, newcomer)


def editors_find_schemas(project: Path) -> None:
    """Each file that names a schema names one there is, and is right by it."""
    checker = str(Path(sys.executable).with_name("check-jsonschema"))
    files = [*project.glob("profiles/*.yaml"), *project.glob("src/**/defs.yaml")]
    assert len(files) == 5
    for file in files:
        found = SCHEMA.match(file.read_text())
        assert found, file
        schema = (file.parent / found[1]).resolve()
        done = subprocess.run(
            [checker, "--schemafile", schema, file], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def nothing_for_git(project: Path, newcomer: Newcomer) -> None:
    """What runs leave behind, and what belongs to this machine, is not for git."""
    newcomer.types("git init -q", project)
    files = newcomer.types("git status --short --untracked-files=all", project).stdout
    assert "dagster_home/dagster.yaml" in files
    assert "uv.lock" in files
    assert not re.search(r"dagster_home/(storage|history)|first\.json| \.env$|\.venv", files, re.M), files


def type_all(project: Path, newcomer: Newcomer, **env: str) -> None:
    """Type what the README says, save for the browser."""
    for line in commands(project / "README.md", HERE):
        if not line.endswith(" dg dev"):
            done = newcomer.types(line, project, **env)
            if " launch " in line:
                assert_made(done.stdout + done.stderr, "first", "summary")


@pytest.mark.parametrize(
    "answers",
    [
        {"workload": "bash", "environment": "pixi", "production_site": "leonardo"},
        {"workload": "none", "environment": "container", "staging_site": "vsc5"},
    ],
    ids=lambda answers: answers["workload"],
)
def test_other_answers(answers: dict[str, str], make: Callable[..., Path], newcomer: Newcomer) -> None:
    type_all(make(**answers), newcomer)


@pytest.mark.parametrize("workload", ["torchrun", "ray"])
def test_frameworks(
    workload: str, make: Callable[..., Path], newcomer: Newcomer, request: pytest.FixtureRequest
) -> None:
    """PyTorch and Ray come from where the other tests have them, for uv would fetch gigabytes."""
    (packages,) = request.getfixturevalue("torch_venv" if workload == "torchrun" else "ray_venv").glob(
        "lib/python*/site-packages"
    )
    newcomer.types("uv sync --quiet", make(workload="none"))
    type_all(make(workload=workload), newcomer, UV_NO_SYNC="1", PYTHONPATH=str(packages))
