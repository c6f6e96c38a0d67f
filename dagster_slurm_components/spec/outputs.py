"""The files that a script makes, by the names that a user gives them."""

import glob
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from dagster_slurm_components.spec.base import Alone, Flag, Format, OrFlag, Word, shape
from dagster_slurm_components.spec.keys import AssetKey
from dagster_slurm_components.spec.model import Model, mistake, option, required
from dagster_slurm_components.spec.place import KeyPath, Locate, Position
from dagster_slurm_components.spec.problems import Problem, did_you_mean
from dagster_slurm_components.spec.slurm_values import Memory
from dagster_slurm_components.spec.templates import is_template
from dagster_slurm_components.units import parse_size

OUTPUT_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}"
_PATH = r"(?![/~$])(?!(?:.*/)?\.\.(?:/|$)).*[^./].*"
_TO = r"(?!(?:.*/)?\.\.(?:/|$))[/$].*[^/].*"
"""Paths and targets as JSON Schemas refuse most of what is none."""
_VARIABLE = re.compile(r"\\([\\$])|\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)
"""A variable, or a `$` or backslash that is none, as after a backslash in a shell."""


def _path(path: str) -> str:
    if is_template(path):  # looked at again once it is rendered
        return path
    if path.startswith(("/", "~", "$")):
        raise mistake(f"{path!r} is not below the payload's folder", "write a path relative to that", "path")
    if ".." in path.split("/") or not path.strip("/."):
        raise mistake(
            f"{path!r} leads out of the payload's folder, or is all of it", "name what is in it", "path"
        )
    return path


def _to(to: str) -> str:
    if is_template(to):
        return to
    if not to.startswith(("/", "$")):
        raise mistake(f"{to!r} is no absolute path", "begin with `/` or a variable: `$HOME/models`", "path")
    if "$" in _VARIABLE.sub("", to):
        raise mistake(f"a `$` in {to!r} begins no variable", "write `$NAME` or `${NAME}`", "path")
    if ".." in to.split("/") or not to.strip("/"):
        raise mistake(f"`..`, and `/` alone, are no target: {to!r}", "name the place itself", "path")
    return to


Target = Annotated[Word, AfterValidator(_to), shape("string", pattern=_TO)]
"""An absolute path on the host, in which `$NAME` and `${NAME}` are variables of the payload."""


class Pull(Model):
    """How an output comes to Dagster's machine."""

    max: Memory | None = option("What is larger stays where it is; a number alone is mebibytes.", "2G")

    @property
    def most(self) -> int | None:
        """The most bytes that are brought, if that is limited."""
        return None if self.max is None else parse_size(self.max, default_unit="M")


PayloadPath = Annotated[Word, AfterValidator(_path), shape("string", "integer", pattern=_PATH)]
"""A path or glob pattern below the payload's working folder."""


class Output(Model):
    """One output: a file, a folder, or what a pattern matches."""

    path: PayloadPath = required(
        "File, folder or glob pattern in the payload's working folder; `**` for any depth.", "out/*.pt"
    )
    optional: Flag = option("The job may end well without it.", True, default=False)
    to: Target | None = option(
        "Where it is published on the host, whole or not at all; `$NAME` is a variable of the payload.",
        "$DATA/models/digits",
    )
    pull: Annotated[Pull | None, OrFlag()] = option(
        "Whether the step brings it to Dagster's machine, into the profile's `pull_to`.", True
    )
    asset: AssetKey | None = option(
        "The one asset whose metadata tell of it; else all of the script do.", "model"
    )


OutputName = Annotated[
    str, Format(OUTPUT_NAME, "the name of an output: letters, digits, `_`, `.` and `-`", "weights")
]
Outputs = dict[
    OutputName,
    Annotated[Output, Alone("path")],
]


_OF_NOTEBOOKS: dict[str, dict[str, Any]] = {
    "notebook": {"path": ".executed.ipynb"},
    "page": {"path": ".html", "optional": True},
    "pictures": {"path": ".pictures", "optional": True},
}
"""What `launchers/job/run_notebook.py` makes, by what the names end in instead of ``.ipynb``."""


def is_notebook(payload: str | None) -> bool:
    """Return whether a payload file is a Jupyter notebook."""
    return payload is not None and payload.endswith(".ipynb")


def variables(to: str | None) -> set[str]:
    """Return the names of the variables in a target.

    >>> sorted(variables("$DATA/${RUN}/x"))
    ['DATA', 'RUN']
    """
    return {name for _, name in parts(to or "")} - {""}


def parts(to: str) -> Iterator[tuple[str, str]]:
    r"""Yield the texts of a target, each with the variable that follows it, if one does.

    >>> list(parts(r"/a$B/${C}d\$"))
    [('/a', 'B'), ('/', 'C'), ('d', ''), ('$', ''), ('', '')]
    """
    at = 0
    for match in _VARIABLE.finditer(to):
        escaped, plain, braced = match.groups()
        yield to[at : match.start()], plain or braced or ""
        if escaped:
            yield escaped, ""
        at = match.end()
    yield to[at:], ""


def literal(path: KeyPath, text: str) -> str:
    r"""Return what a template gave as it is written at a path of a script: no variable begins in it.

    >>> literal(("outputs", "model", "to"), "a$HOME")
    'a\\$HOME'
    """
    is_target = path[:1] == ("outputs",) and path[-1:] == ("to",)
    return re.sub(r"[\\$]", r"\\\g<0>", text) if is_target else text


def output_problems(
    outputs: Mapping[str, Output], assets: list[str], position_of: Locate
) -> Iterator[Problem]:
    """Yield outputs that would meet at one place, and those of assets that the script does not make."""
    seen: dict[str, str] = {}
    for name, output in outputs.items():

        def problem(message: str, hint: str, *path: str, name: str = name) -> Problem:
            return Problem.at(position_of, ("outputs", name, *path), message, hint, "outputs")

        if (other := seen.setdefault(name.lower(), name)) != name:
            yield problem(f"the outputs `{other}` and `{name}` differ by case alone", "rename one")
        target = output.to.rstrip("/") if output.to else None
        if target is not None and (other := seen.setdefault(f"{target}/", name)) != name:
            yield problem(f"`{other}` is published to {target}, too", "name another place", "to")
        unknown = output.asset is not None and output.asset not in assets and bool(assets)
        if unknown and not any(map(is_template, (str(output.asset), *assets))):
            hint = did_you_mean(output.asset, assets) or "name one of its assets"
            yield problem(f"`{output.asset}` is not an asset of this script", hint, "asset")


def wanted(
    outputs: Mapping[str, Output], where: Callable[[str], Position | None], payload: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield what a job is told of each output, also of those that a notebook has by itself.

    ``payload`` is the file's place in the payload folder, and ``where`` finds the line that declares an output.
    """
    if payload is not None and is_notebook(payload):
        stem = glob.escape(payload.removesuffix(".ipynb"))
        own = {name: Output(**{**made, "path": stem + made["path"]}) for name, made in _OF_NOTEBOOKS.items()}
        outputs = {**own, **outputs}
    for name, output in outputs.items():
        told = {"name": name, **output.model_dump(exclude={"pull"}), "where": str(where(name) or "")}
        yield {**told, "pull": {"most": output.pull.most}} if output.pull else told
