"""Each command of README and docs works as typed, in order, on a machine that has this package and its cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typed import Command, Terminal, commands, is_said, parse, perform

import slurm_testcluster as slurm

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
URL = "https://example.org/dagster-slurm-components.git"
"""Where the documents say that this repository is."""

DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md")])
}
TYPED = [name for name, text in DOCUMENTS.items() if parse(text).stage]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_is_typed_or_says_why_not(name: str) -> None:
    page = parse(DOCUMENTS[name])
    left = [step.line for step in page.steps if isinstance(step, Command)] if not page.stage else []
    assert left == [], "commands on a page without `<!-- typed in: ... -->`"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of the files as they are now, with the tag of their version."""
    folder = tmp_path_factory.mktemp("repository") / "dagster-slurm-components"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    # Nothing may be packed in the background while somebody clones it.
    git = (
        "git",
        "-c",
        "gc.auto=0",
        "-c",
        "maintenance.auto=false",
        "-c",
        "user.name=tests",
        "-c",
        "user.email=tests@example.org",
        "-c",
        "commit.gpgsign=false",
    )
    for argv in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "as it is"), ("tag", "v0.2.0")):
        subprocess.run([*git, *argv], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="session")
def home(repository: Path) -> Iterator[Path]:
    """A reader's home; its path is short, since a cluster's sockets may lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="dsd-", dir="/tmp"))
    (folder / ".gitconfig").write_text(
        f'[url "{repository}"]\n    insteadOf = {URL}\n[user]\n    name = Ada\n    email = ada@example.org\n'
        '[protocol "file"]\n    allow = always\n'
    )
    try:
        yield folder
    finally:
        slurm.down(folder / ".cache" / "dagster-slurm" / "cluster")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def terminal(home: Path, tmp_path: Path) -> Terminal:
    """A new terminal of this reader: uv and uvx are installed, packages that were once fetched still are."""
    ours = ("DAGSTER_", "VIRTUAL_ENV", "PYTHONPATH", "PYTEST_", "COLUMNS")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    cache = os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv")
    tools = home / "bin"
    tools.mkdir(exist_ok=True)
    for tool in ("uv", "uvx"):
        if not (tools / tool).exists():
            (tools / tool).symlink_to(BIN / tool)
    env |= {
        "HOME": str(home),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "UV_CACHE_DIR": cache,
        "NO_COLOR": "1",
    }
    # An agent outlives who starts it.
    env |= {"DAGSTER_SLURM_AGENT": "off", "UV_PYTHON": sys.executable}
    return Terminal(cwd=home, env=env, state=tmp_path / "state")


@dataclass
class Place:
    """Where readers sit."""

    repository: Path
    home: Path
    terminal: Terminal
    cluster: slurm.Cluster | None

    def sit_in(self, stage: str, folder: Path) -> None:
        """Put the reader where the page says."""
        self.terminal.cwd = folder
        if stage == "a clone":
            clone = folder / self.repository.name
            subprocess.run(["git", "clone", "-q", str(self.repository), str(clone)], check=True)
            link_venv(clone)
            self.terminal.cwd = clone
        elif stage == "a project":
            self._make_project()
        else:
            assert stage == "a folder", f"no such place: {stage}"

    def _make_project(self) -> None:
        answers = {
            "project_name": "my-project",
            "production_folder": f"{self.terminal.cwd}/scratch/my-project",
        }
        if self.cluster is not None:
            answers |= {"production_user": self.cluster.user, "production_partition": "debug"}
        data = " ".join(f"-d {name}={value}" for name, value in answers.items())
        self.do(f"uvx copier copy --quiet --defaults {data} {URL} my-project")
        self.do("cd my-project && uv sync --quiet && source $UV_PROJECT_ENVIRONMENT/bin/activate")

    def meet_cluster(self, cluster: slurm.Cluster) -> None:
        """Let ``login.example.org`` and the profile `staging` be the tests' Slurm."""
        ssh = self.home / ".ssh"
        ssh.mkdir(exist_ok=True, mode=0o700)
        (ssh / "config").write_text(
            f"Host login.example.org\n    HostName 127.0.0.1\n    Port {cluster.ssh_port}\n"
            f"    IdentityFile {cluster.key_file}\n    UserKnownHostsFile {cluster.known_hosts_file}\n"
        )
        self.terminal.env |= {"DAGSTER_SLURM_CLUSTER": str(cluster.folder), "HPC_USER": cluster.user}
        self.cluster = cluster

    def run_job(self) -> str:
        """Run a job in production; return its id."""
        self.do("dg-slurm env deploy --profile production")
        self.do("DAGSTER_SLURM_PROFILE=production DAGSTER_HOME=$PWD/dagster_home dg launch --assets first")
        (job,) = json.loads(self.do("dg-slurm jobs list --all --profile production --json"))
        return str(job["job_id"])

    def do(self, command: str) -> str:
        """Type what no page says."""
        status, output = self.terminal.type(command)
        assert status == 0, output
        return output


def link_venv(clone: Path) -> None:
    """Give a clone the tests' own ``.venv``, up to date as make sees it."""
    (clone / ".venv").mkdir()
    for name in ("bin", "lib", "share", "pyvenv.cfg"):
        (clone / ".venv" / name).symlink_to(BIN.parent / name)
    for stamp in ("demo.stamp", "dev.stamp"):
        (clone / ".venv" / stamp).touch()


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.parametrize("name", TYPED)
def test_as_typed(
    name: str, terminal: Terminal, repository: Path, home: Path, request: pytest.FixtureRequest
) -> None:
    page = parse(DOCUMENTS[name])
    assert page.stage
    # One environment for all pages: their projects need the same packages.
    terminal.env["UV_PROJECT_ENVIRONMENT"] = str(home / "venv")
    place = Place(repository, home, terminal, None)
    if page.needs:
        place.meet_cluster(request.getfixturevalue("cluster"))
    folder = Path(tempfile.mkdtemp(prefix="page-", dir=home))
    place.sit_in(page.stage, folder)
    words = {"/scratch/": f"{folder}/scratch/"}
    if page.needs == "a job":
        words["4711"] = place.run_job()

    def adapt(text: str) -> str:
        for word, ours in words.items():
            text = text.replace(word, ours)
        return text

    perform(page, terminal, adapt=adapt)


def test_what_is_typed() -> None:
    assert commands("$ one\nsaid\n$ two \\\n> more\n", 5) == [
        Command(5, "one", ("said",)),
        Command(7, "two \\\nmore"),
    ]


@pytest.mark.parametrize(
    ("quoted", "output", "said"),
    [
        (("job 1 ended",), "job 4711 ended\n", True),
        (("first", "...", "third"), "first\nsecond\nthird\n", True),
        (("third", "first"), "first\nsecond\nthird\n", False),
        (("run ab12cd34 is ...",), "\x1b[1mrun ff00aa11 is well\x1b[0m", True),
        (("nothing of the kind",), "first", False),
    ],
)
def test_what_is_said(quoted: tuple[str, ...], output: str, said: bool) -> None:
    assert is_said(quoted, output) is said
