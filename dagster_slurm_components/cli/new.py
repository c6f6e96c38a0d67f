"""``dg-slurm new``: a new project from the template that ships with this package."""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import click
import yaml

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.problems import did_you_mean

_PACKAGE = Path(__file__).resolve().parents[1]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-d", "--data", "answers", multiple=True, metavar="NAME=VALUE", help="Answer a question.")
@click.option("--defaults", is_flag=True, help="Take the default of every question that --data leaves open.")
def new(folder: Path, answers: tuple[str, ...], defaults: bool) -> None:
    """Make a new project in FOLDER.

    The same as `copier copy REPOSITORY FOLDER`, without git. To take over later changes of the template by `copier
    update`, make the project by copier from the repository.
    """
    try:
        import copier  # noqa: PLC0415 - an extra, and 0.3 s
        from copier.errors import CopierAnswersInterrupt, CopierError  # noqa: PLC0415
    except ImportError:
        raise DagsterSlurmError(
            "this command needs copier", hint="pip install 'dagster-slurm-components[new]'"
        ) from None
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DagsterSlurmError(f"{folder} is there already, and not an empty folder")
    data = _parse_answers(answers, _questions())
    if "package_source" not in data:
        data["package_source"] = _package_source()
    try:
        with _plain_template() as source:
            copier.run_copy(str(source), folder, data=data, defaults=defaults or not sys.stdin.isatty())
    except CopierAnswersInterrupt:
        raise DagsterSlurmError("interrupted; nothing was made") from None
    except (CopierError, ValueError) as error:
        raise DagsterSlurmError(_sentence(error)) from None


def _template_folder() -> Path:
    """Return the folder of ``copier.yml``: inside an installed package, or the root of a source tree."""
    installed = _PACKAGE / "_template"
    return installed if installed.is_dir() else _PACKAGE.parent


def _package_source() -> str:
    """Return where a project gets this package from: what this one was installed from, in the question's words.

    Raises:
        DagsterSlurmError: It was installed from a file or folder that is gone.
    """
    if _template_folder() == _PACKAGE.parent:
        return str(_PACKAGE.parent)
    # PEP 610: pip and uv write it for all that does not come from an index.
    origin = json.loads(distribution("dagster-slurm-components").read_text("direct_url.json") or "{}")
    url = origin.get("url", "")
    if "vcs_info" in origin:
        return f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    if urlsplit(url).scheme != "file":
        return str(url)
    path = url2pathname(urlsplit(url).path)
    if not Path(path).exists():
        raise DagsterSlurmError(
            f"dagster-slurm-components was installed from {path}, which is gone; a project could not install it",
            hint="say where it is: --data package_source=/absolute/path/of/the.whl (left empty, the package index)",
        )
    return path


def _parse_answers(pairs: Sequence[str], questions: Sequence[str]) -> dict[str, str]:
    """Return answers by question, from pairs ``NAME=VALUE``."""
    answers = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise DagsterSlurmError(f"--data {pair!r} is not NAME=VALUE")
        if name not in questions:
            raise DagsterSlurmError(f"there is no question `{name}`", hint=did_you_mean(name, questions))
        answers[name] = value
    return answers


@contextmanager
def _plain_template() -> Iterator[Path]:
    """Yield a folder with the template and nothing else.

    copier would clone a source tree, and take its last tag instead of its files.
    """
    source = _template_folder()
    if not (source / ".git").exists():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="dg-slurm-new-") as folder:
        shutil.copy(source / "copier.yml", folder)
        shutil.copytree(source / "template", Path(folder) / "template")
        yield Path(folder)


def _questions() -> list[str]:
    questions = yaml.safe_load((_template_folder() / "copier.yml").read_text(encoding="utf-8"))
    return [name for name, about in questions.items() if name[0] != "_" and about.get("when") is not False]


def _sentence(error: Exception) -> str:
    """Reword what copier says of a wrong answer: ``Validation error for question 'x': why``."""
    text = " ".join(str(error).split())
    found = re.fullmatch(r"Validation error for question '(\w+)': (.*)", text)
    if found:
        return f"the answer to `{found[1]}` can't be taken. {found[2]}"
    found = re.fullmatch(r"Invalid choice for '(\w+)': '(.*)' is not in \[(.*)\]", text)
    if found:
        return f"`{found[2]}` is no answer to `{found[1]}`; write one of {found[3].replace(chr(39), '')}"
    return text
