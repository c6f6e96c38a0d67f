"""What holds for the whole repository: layers, shell files, old Pythons, a light import, true documents."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PACKAGE = ROOT / "dagster_slurm_components"

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md")])
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
TITLE = re.compile(r"(?:#[^\n]*\n)*?# ((?:[\w.-]+/)*[\w.-]+\.(?:yaml|py|sh|R|jl|sbatch))\n")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)

INCLUDES = """type: dagster_slurm_components.SlurmScriptComponent
attributes: {include: ["jobs/*.yaml"]}
"""

DG_SLURM = (sys.executable, "-c", "from dagster_slurm_components.cli.main import main; main()")


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program in the root, without the profile that a developer may have chosen."""
    return subprocess.run(
        [str(word) for word in argv],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("DAGSTER_SLURM_")},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def assert_succeeds(*argv: str | Path) -> None:
    completed = run(*argv)
    assert completed.returncode == 0, completed.stdout


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def shell_files() -> list[Path]:
    """Every shell file that is ours: no copies in run directories, no templates."""
    places = (PACKAGE, ROOT / "slurm_testcluster", ROOT / "examples", ROOT / "scripts", ROOT / "tests")
    found = [path for place in places for path in place.rglob("*.sh")]
    ours = [path for path in found if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)]
    return sorted([*ours, ROOT / ".ci" / "run"])


def test_shell_files_pass_shellcheck():
    files = shell_files()
    assert PACKAGE / "jobs" / "shell" / "job.sh" in files
    lib = PACKAGE / "jobs" / "lib"  # payloads find its files in their PATH
    assert_succeeds(BIN / "shellcheck", "--shell=bash", "--external-sources", f"--source-path={lib}", *files)


def test_the_satellite_runs_on_python_3_6():
    satellite = [PACKAGE / "hosts" / "loader.py", *sorted((PACKAGE / "hosts" / "satellite").glob("*.py"))]
    assert_succeeds(BIN / "vermin", "--target=3.6-", "--violations", "--eval-annotations", *satellite)


def test_the_sampler_runs_on_python_3_6():
    """Its annotations are never evaluated."""
    assert_succeeds(
        BIN / "vermin", "--target=3.6-", "--violations", *(PACKAGE / "jobs" / "sampler").glob("*.py")
    )


def test_the_collector_runs_on_python_3_6():
    files = (PACKAGE / "jobs" / "collector").glob("*.py")
    assert_succeeds(BIN / "vermin", "--target=3.6-", "--violations", "--eval-annotations", *files)


def test_no_import_runs_upward():
    assert_succeeds(BIN / "lint-imports", "--no-cache")


def test_private_parts_of_dagster_are_taken_below_their_guard():
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"^(?:from|import) dagster\._", text, re.MULTILINE), name_of(file)
        assert (
            not re.search(r"^\s+(?:from|import) dagster\._", text, re.MULTILINE)
            or "with private_parts(" in text
        )


def test_importing_the_package_is_light():
    """SSH libraries and the like are loaded on use; every Dagster process pays for what is not."""
    heavy = ("fabric", "paramiko", "cryptography", "invoke", "rich", "jsonschema")
    code = f"import sys, dagster_slurm_components; print([name for name in {heavy} if name in sys.modules])"
    dagster_alone = run(
        sys.executable, "-c", f"import sys, dagster; print([n for n in {heavy} if n in sys.modules])"
    )
    with_us = run(sys.executable, "-c", code)
    assert with_us.returncode == 0, with_us.stdout
    assert with_us.stdout == dagster_alone.stdout


def test_loading_definitions_imports_none_of_dagsters_storages():
    """Dagster's tools import every public name, in each process that loads definitions."""
    heavy = ("sqlalchemy", "alembic", "watchdog", "structlog")
    code = f"""
import sys, dagster_slurm_components as ours
for name in ours.__all__:
    getattr(ours, name)
print([name for name in {heavy} if name in sys.modules])
"""
    done = run(sys.executable, "-c", code)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stdout


def fenced_blocks(document: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and text of each fenced block."""
    for indent, language, text in FENCE.findall(document.read_text("utf-8")):
        yield language, re.sub(f"^{indent}", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_yaml_in_documents_passes_the_check(document: Path, tmp_path: Path):
    """The titled blocks of a document are the files of one small project, and that project is right."""
    (tmp_path / "pyproject.toml").write_text("")
    titles = []
    for language, text in fenced_blocks(document):
        title = TITLE.match(text)
        assert title or language != "yaml", f"a YAML block without a first comment `# its/path.yaml`:\n{text}"
        if title:
            path = tmp_path / title[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            titles.append(title[1])
            # Payloads need no block; one that has it replaces this.
            for payload in re.findall(r"payload: ([\w./-]+\.\w+)", text):
                (path.parent / payload).parent.mkdir(parents=True, exist_ok=True)
                (path.parent / payload).touch()
    if any(title.startswith("jobs/") for title in titles):
        (tmp_path / "defs.yaml").write_text(INCLUDES)
    if any(re.search(r"(^|/)(profiles|sites|jobs)/|defs\.yaml$", title) for title in titles):
        assert_succeeds(*DG_SLURM, "check", tmp_path)


def test_every_page_is_listed():
    links = LINK.findall((ROOT / "docs" / "README.md").read_text("utf-8"))
    listed = {(ROOT / "docs" / link).resolve() for link, _ in links}
    assert [name_of(page) for page in sorted((ROOT / "docs").glob("*/*.md")) if page not in listed] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_in_documents_lead_somewhere(document: Path):
    for link, anchor in LINK.findall(document.read_text("utf-8")):
        if "://" not in link:
            target = document.parent / link if link else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), f"{link}#{anchor}"


def anchors(document: Path) -> set[str]:
    """Return the headings of a document as forges name them in links."""
    text = FENCE.sub("", document.read_text("utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in HEADING.findall(text)
    }


def sources() -> str:
    """Return all code of the package that names variables, figures and tags."""
    files = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".sh")]
    return "\n".join(path.read_text("utf-8") for path in files)


def test_each_figure_and_tag_is_described():
    page = (ROOT / "docs" / "reference" / "metadata.md").read_text("utf-8")
    named = set(re.findall(r'"((?:job|slurm)/[a-z_]+)"', sources()))
    assert "job/id" in named
    assert set(re.findall(r"`((?:job|slurm)/[a-z_]+)`", page)) == named


def test_each_field_of_yaml_is_described():
    page = (ROOT / "docs" / "reference" / "yaml.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (.*) \|$", page, re.MULTILINE)
    assert ("type", 'Which launcher. Default: `"bash"`.') in rows
    assert [field for field, what in rows if not what or what.startswith(("Default:", "Example:"))] == []


def test_the_examples_pass_the_check():
    assert_succeeds(*DG_SLURM, "check", "examples")


def test_each_feature_of_dagsters_has_a_test_that_exists():
    page = (ROOT / "docs" / "reference" / "dagster-features.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| feature ")]
    assert len(rows) > 40
    missing = []
    for row in rows:
        named = re.search(r"`(tests/[^:`]+)::(\w+)` \|$", row)
        if named is None or f"\ndef {named[2]}(" not in (ROOT / named[1]).read_text("utf-8"):
            missing.append(row)
    assert missing == []


def test_the_page_of_variables_names_all_of_them():
    """Those that we read or set, but for what our own programs tell each other."""
    ours = (
        "ASKPASS",
        "CLUSTER_DAEMON",
        "EXPORTED",
        "HOP",
        "HOST_PYTHON",
        "INSIDE_PYTHON",
        "LC_CTYPE",
        "OUTSIDE",
    )
    ours += ("INPUT", "PARTITION", "UMASK", "WORKDIR")
    among_us = {f"DAGSTER_SLURM_{name}" for name in ours}
    files = [
        file
        for folder in ("dagster_slurm_components", "slurm_testcluster")
        for file in (ROOT / folder).rglob("*")
    ]
    texts = [file.read_text("utf-8") for file in files if file.suffix in (".py", ".sh", ".R", ".jl")]
    used = {name for text in texts for name in re.findall(r"DAGSTER_SLURM_[A-Z_]*[A-Z]", text)}
    table = (ROOT / "docs" / "reference" / "variables.md").read_text("utf-8")
    named = set(re.findall(r"^\| .*", table, re.MULTILINE))
    assert used - among_us == {
        name for row in named for name in re.findall(r"DAGSTER_SLURM_[A-Z_]*[A-Z]", row.split("|")[1])
    }
