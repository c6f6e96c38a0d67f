"""All YAML of a project, checked at once: what ``dg-slurm check`` does."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from dagster_slurm_components.spec.check_script import CheckedScript, ScriptChecker
from dagster_slurm_components.spec.component import (
    COMPONENT_TYPE,
    FILE_NAMES,
    ComponentSpec,
    DefsFile,
    read_component,
    read_script,
)
from dagster_slurm_components.spec.cross_checks import (
    circular_deps,
    duplicate_assets,
    duplicate_names,
    override_problems,
    unknown_deps,
    unlike_partitions,
)
from dagster_slurm_components.spec.imported import files_below, imported_payloads
from dagster_slurm_components.spec.local_files import payload_file
from dagster_slurm_components.spec.model import validate_unrendered
from dagster_slurm_components.spec.problems import Problem, SpecError, did_you_mean, in_order, problems_of
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import (
    PROFILES_DIR_VARIABLE,
    LoadedProfile,
    UnknownProfileError,
    load_profile,
    load_profile_file,
    profile_names,
    profiles_folder,
    single_document,
    validated,
)
from dagster_slurm_components.spec.site import Site
from dagster_slurm_components.spec.source import Document, load_documents
from dagster_slurm_components.spec.templates import syntax_problems

_OUR_PREFIX = COMPONENT_TYPE.partition(".")[0] + "."


@dataclass(frozen=True)
class Report:
    """What a check found, in the order of the files' text, and how much it read; each cell of a matrix is a script."""

    problems: tuple[Problem, ...]
    files: int
    scripts: int

    def count(self, level: str) -> int:
        """Return how many problems are of a level."""
        return sum(problem.level == level for problem in self.problems)


def check_project(
    paths: Sequence[Path],
    *,
    profiles: Sequence[str] = (),
    is_subclass: Callable[[str, Path], bool] = lambda name, file: False,
) -> Report:
    """Check all YAML files of this package's kinds at and below some paths.

    Templates stay as they are, so that no environment variable must be set. A ``defs.yaml``, the files that it
    includes, files in a folder ``profiles`` and files in a folder ``sites`` are known by their places; any other file
    is checked only if it is named, as a script.

    Args:
        paths: Files and folders.
        profiles: Check scripts in these profiles only; in all of them by default. An unknown one is an
            UnknownProfileError.
        is_subclass: Tells whether a type that a file names is a subclass of this package's component.
    """
    return _Checker(tuple(profiles), is_subclass).check(paths)


class _Checker:
    """Reads files once and collects their problems."""

    def __init__(self, profiles: tuple[str, ...], is_subclass: Callable[[str, Path], bool]) -> None:
        self.profiles = profiles
        self.is_subclass = cache(is_subclass)
        self.problems: list[Problem] = []
        self.read: set[Path] = set()
        self.components: list[list[CheckedScript]] = []
        self.external: set[str] = set()
        self.payloads: set[Path | None] = set()
        self.included = cache(self._included)
        self.checkers: dict[Path | None, ScriptChecker] = {}

    def check(self, paths: Sequence[Path]) -> Report:
        # Problems of one file must look alike however it was found.
        paths = [Path(os.path.abspath(path)) for path in paths]
        for path in paths:
            files = list(files_below(path, ".yaml", ".yml")) if path.is_dir() else [path]
            # Of a folder with scripts only, its component tells what they are.
            alone = not any(file.name in FILE_NAMES for file in files)
            for file in files:
                self._file(file, named=file == path or (alone and self._owner(file) is not None))
        scripts = [script for component in self.components for script in component]
        self.problems += [
            *duplicate_assets(scripts),
            *duplicate_names(self.components),
            *circular_deps(scripts),
            *unlike_partitions(scripts),
        ]
        # Beside a few files of a project, those that make the assets they depend on may not have been read.
        if all(path.is_dir() for path in paths):
            self.problems += unknown_deps(scripts, self.external)
        for path in filter(Path.is_dir, paths):
            self.problems += imported_payloads(path, self.payloads)
        return Report(in_order(self.problems), len(self.read), len(scripts))

    def _file(self, file: Path, *, named: bool) -> None:
        check = self._check_of(file, named)
        if check is None or file in self.read:
            return
        self.read.add(file)
        try:
            check(file)
        except UnknownProfileError:
            raise
        except SpecError as exc:
            self.problems += exc.problems

    def _check_of(self, file: Path, named: bool) -> Callable[[Path], None] | None:
        if file.name in FILE_NAMES:
            return self._defs
        if file.parent.name == "profiles" or str(file.parent) == os.environ.get(PROFILES_DIR_VARIABLE):
            return self._profile
        if file.parent.name == "sites":
            return self._site
        return self._named if named else None

    def _profile(self, file: Path) -> None:
        document = single_document(file)
        self.problems += syntax_problems(document.data, document.position)
        load_profile_file(file, unrendered=True)

    def _site(self, file: Path) -> None:
        document = single_document(file)
        self.problems += syntax_problems(document.data, document.position)
        validated(Site, document.data, document, unrendered=True)

    def _named(self, file: Path) -> None:
        """Check a file that only its component says anything about: a script, alone if no component includes it."""
        owner = self._owner(file)
        if owner is not None:
            self._file(owner, named=True)
            return
        for document in load_documents(file):
            self._component(read_script(document), file.parent)

    def _owner(self, file: Path) -> Path | None:
        """Return the nearest file above whose component includes a file."""
        owners = (folder / name for folder in file.parents for name in FILE_NAMES)
        return next((owner for owner in owners if file in self.included(owner)), None)

    def _included(self, owner: Path) -> frozenset[Path]:
        """Return the files that the components of a file include."""
        try:
            ours = [each for each in load_documents(owner) if self._is_ours(each)] if owner.is_file() else []
        except SpecError:
            return frozenset()  # its own mistakes are told when it is checked itself
        return frozenset(file for each in ours for spec in _components(each) for file in spec.included)

    def _defs(self, file: Path) -> None:
        for document in load_documents(file, keep_empty=True):
            where = document.position
            if document.data is None:  # Dagster 1.13 refuses the file
                message, hint = "the document is empty", "remove the `---` around nothing"
                self.problems.append(Problem.at(where, (), message, hint, "empty"))
            elif not isinstance(document.data, Mapping):
                message = "expected a mapping with the `type` of a component"
                self.problems.append(Problem.at(where, (), message, kind="mapping"))
            elif self._is_ours(document):
                self._ours(document)
            else:
                self.problems += _wrong_type(document)

    def _ours(self, document: Document) -> None:
        try:
            validate_unrendered(DefsFile, {**document.data, "type": COMPONENT_TYPE})
        except ValidationError as exc:
            self.problems += problems_of(exc, document.position)
        self.problems += syntax_problems(document.data, document.position)
        for spec in _components(document):
            self._component(spec, Path(document.file).absolute().parent)

    def _is_ours(self, document: Document) -> bool:
        name = document.data.get("type") if isinstance(document.data, Mapping) else None
        if not isinstance(name, str):
            return False
        return name == COMPONENT_TYPE or self.is_subclass(name, Path(document.file))

    def _component(self, spec: ComponentSpec, folder: Path) -> None:
        """Check the scripts of one component."""
        self.problems += spec.problems
        self.external.update(spec.external)
        self.read.update(spec.included)
        checker = self._checker(folder)
        names = profile_names(folder)
        scripts = [checker.check(entry) for entry in spec.entries]
        for checked in scripts:
            self.problems += [*checked.problems, *override_problems(checked.entry, names)]
            self.payloads.add(payload_file(checked.merged))
        self.components.append(scripts)

    def _checker(self, folder: Path) -> ScriptChecker:
        """Return the checker for the profiles that hold in a folder; the mistakes of a wrong one are told."""
        where = profiles_folder(folder)
        if where in self.checkers:
            return self.checkers[where]
        loaded = {}
        for name in self.profiles or profile_names(folder):
            try:
                loaded[name] = load_profile(name, start=folder, unrendered=True)
            except UnknownProfileError:
                raise
            except SpecError as exc:
                self.problems += exc.problems
        loaded = loaded or {"local": LoadedProfile("local", Profile(), (), folder)}
        return self.checkers.setdefault(where, ScriptChecker(loaded))


def _components(document: Document) -> Iterator[ComponentSpec]:
    """Yield the component of a document, if it has ``attributes``."""
    if isinstance(document.data.get("attributes"), Mapping):
        yield read_component(document.child(("attributes",)))


def _wrong_type(document: Document) -> Iterator[Problem]:
    """Yield a slip in the name of our type; components of others are theirs to check."""
    kind = document.data.get("type")
    if kind is None:
        write = f"write `type: {COMPONENT_TYPE}`"
        yield Problem("`type` is missing", document.position(), ("type",), write, "missing")
    elif isinstance(kind, str) and kind.startswith(_OUR_PREFIX):
        message = f"unknown component type `{kind}`"
        hint = did_you_mean(kind, [COMPONENT_TYPE])
        yield Problem.at(document.position, ("type",), message, hint, "unknown_type")
