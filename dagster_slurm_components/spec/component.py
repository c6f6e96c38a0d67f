"""A ``defs.yaml`` with the attributes of ``SlurmScriptComponent``: scripts, files with more, and their defaults."""

import glob
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from dagster_slurm_components.spec.assets import AssetAttributes
from dagster_slurm_components.spec.base import Text, Word
from dagster_slurm_components.spec.keys import AssetKey
from dagster_slurm_components.spec.matrix import expand
from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.model import Model, option, required, template_at, validate_unrendered
from dagster_slurm_components.spec.problems import Problem, SpecError, in_order, problems_of
from dagster_slurm_components.spec.resolve import ScriptEntry
from dagster_slurm_components.spec.script import DEFAULTABLE, partial_errors
from dagster_slurm_components.spec.source import Document, load_documents
from dagster_slurm_components.spec.templates import Renderer, keep
from dagster_slurm_components.spec.trust import check_owner

COMPONENT_TYPE = "dagster_slurm_components.SlurmScriptComponent"
FILE_NAMES = ("defs.yaml", "component.yaml")
"""The files in which Dagster looks for components (dagster 1.13)."""
_EXAMPLE = {"payload": "train.py", "resources": {"cpus_per_task": 4}, "assets": [{"key": "models/digits"}]}


class ComponentAttributes(Model):
    """What stands under ``attributes`` in a ``defs.yaml``."""

    defaults: dict[str, Any] = option(
        "What all scripts have in common.", {"environment": {"type": "current"}}, default={}
    )
    scripts: list[dict[str, Any]] = option(
        "The scripts: each is one op, and under Slurm one job.", [_EXAMPLE], default=[]
    )
    include: list[Word] = option(
        "Glob patterns of files with scripts, in the same words; relative to this file.",
        ["jobs/*.yaml"],
        default=[],
    )
    external: list[AssetKey] = option(
        "Keys of assets that something else makes; `deps` may name them without a warning.",
        ["raw/digits"],
        default=[],
    )


class Requirements(Model):
    """What a component needs to load."""

    env: list[Word] | None = option("Environment variables that must be set.", ["HPC_USER"])


class AssetPostProcessor(Model):
    """One change to assets, made by Dagster; keys can't be changed."""

    target: Text = option("Asset selection.", "group:training", default="*")
    operation: Literal["merge", "replace"] = option(
        "How these attributes meet those there are.", "merge", default="merge"
    )
    attributes: AssetAttributes = required("The attributes.", {"group_name": "training"})


class PostProcessing(Model):
    """Changes to a component's definitions, made by Dagster."""

    assets: list[AssetPostProcessor] | None = option(
        "Changes to assets, in this order.", [{"target": "*", "attributes": {"group_name": "training"}}]
    )


class DefsFile(Model):
    """One document of a ``defs.yaml`` that holds this component."""

    type: Literal["dagster_slurm_components.SlurmScriptComponent"] = required(
        "Type of the component.", COMPONENT_TYPE
    )
    attributes: dict[Any, Any] | None = option(
        "Scripts and their defaults.",
        {
            "defaults": {"resources": {"cpus_per_task": 4, "mem": "8G"}},
            "scripts": [
                {
                    "payload": "train.py",
                    "resources": {"time": "00:30:00"},
                    "assets": [{"key": "models/digits"}],
                }
            ],
        },
    )
    template_vars_module: Word | None = option("Module with template variables.", ".template_vars")
    requirements: Requirements | None = option("What the component needs to load.", {"env": ["HPC_USER"]})
    post_processing: PostProcessing | None = option(
        "Changes to the component's definitions.", {"assets": [{"attributes": {"group_name": "training"}}]}
    )


@dataclass(frozen=True)
class ComponentSpec:
    """A component's attributes, read.

    Attributes:
        entries: Its scripts, those of the file itself first, then those of included files.
        external: Keys of assets that something else makes.
        problems: What is wrong; an entry with a problem of its own is left out of ``entries``.
    """

    entries: tuple[ScriptEntry, ...]
    external: tuple[str, ...] = ()
    included: tuple[Path, ...] = ()
    problems: tuple[Problem, ...] = ()


def read_component(document: Document, *, render: Renderer = keep) -> ComponentSpec:
    """Read a component's attributes, of which ``document`` is the view, and hand back what is wrong beside the rest.

    ``render`` renders the templates of each script once its ``matrix`` is expanded, and all others.
    """
    try:
        return _Reader(document, render).read()
    except SpecError as exc:
        return ComponentSpec((), problems=in_order(exc.problems))


def read_script(document: Document) -> ComponentSpec:
    """Read a document that is one script, without defaults."""
    reader = _Reader(document, keep)
    entries = [entry for script in reader.scripts([document]) for entry in reader.entries(script, None)]
    return ComponentSpec(tuple(entries), problems=in_order(reader.problems))


class _Reader:
    """Reads one component and collects its problems."""

    def __init__(self, document: Document, render: Renderer) -> None:
        self.document = document
        self.render = render
        self.folder = Path(document.file).absolute().parent
        self.problems: list[Problem] = []

    def read(self) -> ComponentSpec:
        data = {} if self.document.data is None else self.document.data
        position = self.document.position
        if not isinstance(data, Mapping):
            raise SpecError([Problem.at(position, (), "expected a mapping", kind="mapping")])
        head = {key: value for key, value in data.items() if key not in ("scripts", "defaults")}
        attributes = self._attributes({**data, **self.render(head, position)})
        if attributes is None:
            return ComponentSpec(())
        written = data.get("scripts", [])
        if not isinstance(written, list):
            message = "expected a list: each script has its own place in the file"
            self.problems.append(Problem.at(position, ("scripts",), message, kind="list"))
            written = []
        own = [
            self.document.child(("scripts", index))
            for index, script in enumerate(written)
            if isinstance(script, Mapping)
        ]
        defaults = self._defaults(attributes.defaults)
        included = self._included(attributes.include)
        scripts = [*own, *(script for file in included for script in self._file(file))]
        entries = [entry for script in scripts for entry in self.entries(script, defaults)]
        external = tuple(attributes.external)
        return ComponentSpec(tuple(entries), external, included, in_order(self.problems))

    def _attributes(self, data: dict[str, Any]) -> ComponentAttributes | None:
        """Return the attributes; a mistyped key among them keeps no mistake below the others from being told."""
        try:
            return validate_unrendered(ComponentAttributes, data)
        except ValidationError as exc:
            found = problems_of(exc, self.document.position)
            if any(problem.kind != "unknown_key" for problem in found):
                raise SpecError(found) from None
        self.problems += found
        known = {key: value for key, value in data.items() if key in ComponentAttributes.model_fields}
        return validate_unrendered(ComponentAttributes, known)

    def _defaults(self, written: Mapping[str, Any]) -> Layer | None:
        if not written:
            return None
        view = self.document.child(("defaults",))
        try:
            data = self.render(written, view.position)
        except SpecError as exc:
            self.problems += exc.problems
            return None
        wrong = partial_errors(data, DEFAULTABLE, "`defaults`")
        if wrong := [error for error in wrong if template_at(data, error["loc"]) is None]:
            error = ValidationError.from_exception_data("defaults", wrong)
            self.problems += problems_of(error, view.position)
        return Layer("defaults", data, view.position, self.folder, written)

    def _file(self, file: Path) -> Iterator[Document]:
        """Yield the scripts of an included file."""
        try:
            check_owner(file, self.folder)
            yield from self.scripts(load_documents(file))
        except SpecError as exc:
            self.problems += exc.problems

    def scripts(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield the documents that are scripts, as all of them should be."""
        for document in documents:
            if isinstance(document.data, Mapping):
                yield document
            else:
                problem = Problem.at(document.position, (), "expected a script", kind="mapping")
                self.problems.append(problem)

    def entries(self, document: Document, defaults: Layer | None) -> Iterator[ScriptEntry]:
        """Yield the script of a document, or those of its matrix."""
        folder = Path(document.file).absolute().parent
        try:
            for cell in expand(Layer("script", document.data, document.position, folder)):
                data = self.render(cell.data, document.position)
                layer = Layer(cell.name, data, document.position, folder, cell.data)
                yield ScriptEntry(layer, defaults, folder)
        except SpecError as exc:
            self.problems += exc.problems

    def _included(self, patterns: list[str]) -> tuple[Path, ...]:
        """Return the files that ``include`` names, each once; a pattern that finds none is a mistake."""
        included: dict[Path, None] = {}
        for index, pattern in enumerate(patterns):
            files = [self.folder / name for name in glob.glob(pattern, root_dir=self.folder, recursive=True)]
            files = sorted(file for file in files if file.is_file())
            if not files:
                message = f"no file matches {pattern!r} in {self.folder}"
                hint = "relative patterns start at the folder of this file"
                where = self.document.position
                self.problems.append(Problem.at(where, ("include", index), message, hint, "no_file"))
            included.update(dict.fromkeys(files))
        return tuple(included)
