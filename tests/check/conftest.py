"""A project around one file of a corpus."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dagster_slurm_components.spec.profiles import PROFILE_VARIABLE, PROFILES_DIR_VARIABLE

CORPUS = Path(__file__).parent
HOSTILE = "a b';$(x).py"
COMPONENT = "type: dagster_slurm_components.SlurmScriptComponent\n"
PRODUCTION = """\
site: testsite
host: {type: ssh, hostname: login.example.org}
scheduler: slurm
workdir: /scratch
resources: {partition: gpu}
"""
SITE = """\
partitions:
  gpu: {max_time: "1-00:00:00", max_nodes: 64, max_gpus_per_node: 4}
  long: {}
"""
EXPECT = re.compile(r"^# expect (\d+): (.*)$", re.MULTILINE)
GAP = re.compile(r"^# gap check-jsonschema: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """One file of a corpus.

    Attributes:
        name: Its name, which says what kind of file it is.
        content: Its bytes.
        expected: Line and message of each error, from its first lines.
        gap: Why check-jsonschema does not find the errors.
    """

    name: str
    content: bytes
    expected: tuple[tuple[int, str], ...] = ()
    gap: str | None = None

    @property
    def kind(self) -> str:
        return self.name.partition("-")[0]


def samples(corpus: str) -> list[Sample]:
    """Return the files of a corpus: ``right`` or ``wrong``."""
    found = []
    for file in sorted((CORPUS / corpus).glob("*.yaml")):
        text = file.read_bytes().decode()
        expected = tuple((int(line), message) for line, message in EXPECT.findall(text))
        gap = GAP.search(text)
        found.append(Sample(file.stem, file.read_bytes(), expected, gap[1] if gap else None))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test for each file of the corpus that it names."""
    for corpus in ("right", "wrong"):
        if corpus in metafunc.fixturenames:
            found = samples(corpus)
            metafunc.parametrize(corpus, found, ids=[sample.name for sample in found])
        if f"{corpus}_component" in metafunc.fixturenames:  # what Dagster reads when it loads
            found = [sample for sample in samples(corpus) if sample.kind in ("defs", "script")]
            metafunc.parametrize(f"{corpus}_component", found, ids=[sample.name for sample in found])


@pytest.fixture(scope="session")
def corpora() -> dict[str, list[Sample]]:
    """All files of both corpora."""
    return {corpus: samples(corpus) for corpus in ("right", "wrong")}


def make_project(folder: Path, name: str, content: bytes) -> Path:
    """Write a project that holds one file, named for what it is: ``script-...``, ``profile-...``.

    Returns:
        The file.
    """
    for sub in ("profiles", "sites", "defs/jobs/config"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").touch()
    (folder / "profiles" / "production.yaml").write_text(PRODUCTION)
    (folder / "sites" / "testsite.yaml").write_text(SITE)
    for where in ("defs", "defs/jobs"):
        for payload in ("train.py", "report.ipynb", HOSTILE, "config/a.yaml"):
            (folder / where / payload).parent.mkdir(exist_ok=True)
            (folder / where / payload).touch()
    kind = name.partition("-")[0]
    if kind == "script":
        (folder / "defs" / "defs.yaml").write_text(f"{COMPONENT}attributes: {{include: [jobs/*.yaml]}}\n")
    places = {
        "defs": "defs/defs.yaml",
        "script": "defs/jobs/script.yaml",
        "profile": "profiles/checked.yaml",
        "site": "sites/checked.yaml",
    }
    file = folder / places[kind]
    file.write_bytes(content)
    return file


@pytest.fixture
def project(tmp_path, monkeypatch) -> Callable[[str, bytes], Path]:
    monkeypatch.delenv(PROFILE_VARIABLE, raising=False)
    monkeypatch.delenv(PROFILES_DIR_VARIABLE, raising=False)
    return lambda name, content: make_project(tmp_path, name, content)


@pytest.fixture
def fresh_project(tmp_path, monkeypatch) -> Callable[[str, bytes], Path]:
    """As ``project``, in another folder each time, for tests that hypothesis runs many times."""
    monkeypatch.delenv(PROFILE_VARIABLE, raising=False)
    monkeypatch.delenv(PROFILES_DIR_VARIABLE, raising=False)
    numbers = itertools.count()
    return lambda name, content: make_project(tmp_path / str(next(numbers)), name, content)
