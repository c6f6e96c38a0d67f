"""Finding and reading profiles, and the sites that they name."""

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from dagster_slurm_components.spec.hosts import LocalHost
from dagster_slurm_components.spec.merge import Layer, merge
from dagster_slurm_components.spec.model import Model, validate_unrendered
from dagster_slurm_components.spec.problems import Problem, SpecError, did_you_mean, nearest, problems_of
from dagster_slurm_components.spec.profile import Limits, Profile
from dagster_slurm_components.spec.run_override import NOTHING_ASKED, RunOverride
from dagster_slurm_components.spec.site import Site
from dagster_slurm_components.spec.source import Document, parse_documents, read_text
from dagster_slurm_components.spec.templates import LazyValues, Renderer, keep, render
from dagster_slurm_components.spec.trust import check_owner, upwards

PROFILE_VARIABLE = "DAGSTER_SLURM_PROFILE"
"""Environment variable that chooses the profile; ``local`` without it."""
PROFILES_DIR_VARIABLE = "DAGSTER_SLURM_PROFILES_DIR"
"""Environment variable that names the folder of the profiles, instead of the nearest ``profiles/``."""

SHIPPED_SITES = Path(__file__).parent.parent / "sites"
OWN_SITES = "sites"
"""The folder of a project's own sites, beside its ``profiles/``."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_LAYER_FIELDS = ("resources", "environment", "env", "export", "umask", "launcher", "leave")
_ModelT = TypeVar("_ModelT", bound=Model)


@dataclass(frozen=True)
class LoadedProfile:
    """A profile, ready for use.

    Attributes:
        profile: The profile, with its site's limits below its own; ``workdir`` of the local host is absolute.
        layers: What it gives to scripts, lowest first: the site's layer if it names one, then its own.
        folder: The project folder (the parent of ``profiles/``); relative paths in the profile start here.
        file: The file it was read from; None for the built-in ``local``.
        run: What one run asks for, on top of all that scripts say.
    """

    name: str
    profile: Profile
    layers: tuple[Layer, ...]
    folder: Path
    site: Site | None = None
    file: Path | None = None
    run: RunOverride = NOTHING_ASKED


class UnknownProfileError(SpecError):
    """A profile that was asked for does not exist."""


def load_profile(
    name: str | None = None, *, start: Path, unrendered: bool = False, run: RunOverride = NOTHING_ASKED
) -> LoadedProfile:
    """Load the profile of a name, else what a run asks for, else what ``DAGSTER_SLURM_PROFILE`` says, else ``local``.

    The search for ``profiles/<name>.yaml`` begins at ``start`` and goes on in the parents. Templates stay as they are
    if it is ``unrendered``, for checks that must need no environment variable. A SpecError tells all mistakes.
    """
    name, file, project = _find(name or run.profile, start)
    if file is not None:
        return replace(load_profile_file(file, unrendered=unrendered), run=run)
    return _at_home(LoadedProfile(name, Profile(), (), project, run=run))


def chosen_profile() -> str:
    """Return the name of the profile that the environment of this process chooses."""
    return os.environ.get(PROFILE_VARIABLE) or "local"


def _find(name: str | None, start: Path) -> tuple[str, Path | None, Path]:
    """Return the name of a profile, its file unless it is the built-in one, and the project's folder."""
    name = name or chosen_profile()
    folder = profiles_folder(start)
    file = folder / f"{name}.yaml" if folder and _NAME.fullmatch(name) else None
    if file is not None and file.is_file():
        return name, file, file.parent.parent
    if name != "local":
        raise UnknownProfileError([_unknown_profile(name, folder, start)])
    return name, None, folder.parent if folder else project_folder(start)


def load_profile_file(file: Path, *, unrendered: bool = False) -> LoadedProfile:
    """Load the profile that a file holds, as ``load_profile`` does; its name is the file's, without ``.yaml``.

    Beside ``env``, its templates know what ``template_scope`` tells.
    """
    project = file.absolute().parent.parent
    document = _obeyed(file, project)
    renderer: Renderer = keep if unrendered else partial(render, scope=template_scope(project))
    data = renderer(document.data, document.position)
    profile = validated(Profile, data, document, unrendered=unrendered)
    layers = [_layer(f"profile {file.stem}", data, document, project)]
    site = None
    if profile.site is not None:
        below = _obeyed(_site_file(profile.site, project, document), project)
        facts = renderer(below.data, below.position)
        site = validated(Site, facts, below, unrendered=unrendered)
        layers.insert(0, _layer(f"site {profile.site}", facts, below, project))
        limits = Limits.model_validate({**site.limits.explicit(), **profile.limits.explicit()})
        profile = profile.model_copy(update={"limits": limits})
    return _at_home(LoadedProfile(file.stem, profile, tuple(layers), project, site, file))


def _obeyed(file: Path, project: Path) -> Document:
    """Read a file that may run commands: not one of another user's."""
    if file.parent != SHIPPED_SITES and file.is_file():
        check_owner(file, project)
    return single_document(file)


def template_scope(project: Path) -> dict[str, Any]:
    """Return what templates of a profile know beside ``env``.

    ``project_root`` is the absolute path of the project folder: a variable that names a folder must not depend on
    where Dagster was started. ``cluster`` are the values of the profile that ``dg-slurm cluster up`` wrote on this
    machine: its ports are known only then, so a profile that is kept with a project can't name them.
    """
    return {"project_root": str(project), "cluster": LazyValues("cluster", _cluster_values)}


def _cluster_values() -> Mapping[str, Any]:
    from slurm_testcluster import default_folder  # noqa: PLC0415 - for few profiles

    file = default_folder() / "profile.yaml"
    if not file.is_file():
        message = f"there is no test cluster on this machine: no {file}"
        raise SpecError([Problem(message, hint="start one by `dg-slurm cluster up`", kind="no_cluster")])
    return dict(single_document(file).data)


def profile_values(name: str | None = None, *, start: Path) -> LazyValues:
    """Return what templates of scripts know as ``profile``: the chosen profile's values, its site's below.

    Nothing is read before a template asks, and only what it asks for is rendered and needs its variables.
    """
    return LazyValues("profile", partial(_profile_values, name, start))


def _profile_values(name: str | None, start: Path) -> Mapping[str, Callable[[], Any]]:
    name, file, project = _find(name, start)
    documents = [_obeyed(file, project)] if file is not None else []
    site = documents[0].data.get("site") if documents else None
    if isinstance(site, str):
        documents.insert(0, _obeyed(_site_file(site, project, documents[0]), project))
    defaults = Profile().model_dump(mode="json", exclude_none=True)
    # Only the local host may have a relative workdir, and there it starts at the project folder.
    defaults["workdir"] = str(project / defaults["workdir"])
    fields = {**dict.fromkeys(Profile.model_fields), **defaults, "name": name}
    scope = template_scope(project)

    def value(key: str) -> Any:
        views = [each.child((key,)) for each in documents if each.data.get(key) is not None]
        trees = [{key: render(view.data, view.position, scope=scope)} for view in views]
        return merge([Layer("", tree, lambda path: None) for tree in trees]).data.get(key, fields[key])

    return {key: partial(value, key) for key in fields}


def profiles_folder(start: Path) -> Path | None:
    """Return the folder of the profiles: the variable's, or the nearest one from ``start`` up to the project's root."""
    named = os.environ.get(PROFILES_DIR_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    folders = (folder / "profiles" for folder in upwards(start.absolute()))
    return next((folder for folder in folders if folder.is_dir() and any(folder.glob("*.yaml"))), None)


def project_folder(start: Path) -> Path:
    """Return the nearest folder from ``start`` up with a ``dg.toml`` or ``pyproject.toml``."""
    start = start.absolute()
    marks = ("dg.toml", "pyproject.toml")
    return next((f for f in upwards(start) if any((f / mark).is_file() for mark in marks)), start)


def schema_line(folder: Path, project: Path | None) -> str:
    """Return the line that names the schema for editors: the project's own, or that of its virtual environment."""
    for schemas in (Path("schemas"), Path(sys.prefix, "share", "dagster-slurm-components", "schemas")):
        file = (project or folder) / schemas / "defs.schema.json"
        if project and file.is_relative_to(project) and file.is_file():
            return f"# yaml-language-server: $schema={Path(os.path.relpath(file, folder)).as_posix()}\n"
    return ""


def profile_names(start: Path) -> tuple[str, ...]:
    """Return the names of all profiles, ``local`` among them."""
    folder = profiles_folder(start)
    names = {file.stem for file in folder.glob("*.yaml")} if folder else set()
    return tuple(sorted({"local", *filter(_NAME.fullmatch, names)}))


@dataclass(frozen=True)
class KnownSite:
    """A site by the name that a profile writes, and the file with its facts, which this package or the project has."""

    name: str
    file: Path
    shipped: bool

    def load(self) -> Site:
        """Read the facts; a SpecError tells their mistakes."""
        document = single_document(self.file)
        return validated(Site, render(document.data, document.position), document)


def known_sites(start: Path) -> Mapping[str, KnownSite]:
    """Return all sites that a folder of a project sees, by name; the project's own stand before shipped ones."""
    profiles = profiles_folder(start)
    return _sites(profiles.parent if profiles else project_folder(start))


def _sites(project: Path) -> Mapping[str, KnownSite]:
    files = [file for folder in (SHIPPED_SITES, project / OWN_SITES) for file in folder.glob("*.yaml")]
    sites = {file.stem: KnownSite(file.stem, file, file.parent == SHIPPED_SITES) for file in files}
    return dict(sorted(sites.items()))


def known_site(name: str, start: Path) -> KnownSite:
    """Return the site of this name, or raise a SpecError."""
    sites = known_sites(start)
    if name not in sites:
        hint = did_you_mean(name, sites)
        raise SpecError([Problem(f"unknown site `{name}`", hint=hint, kind="unknown_site")])
    return sites[name]


def _site_file(name: str, project: Path, document: Document) -> Path:
    """Return the file of the site that a profile's document names."""
    sites = _sites(project)
    if name in sites:
        return sites[name].file
    guess = nearest(name, sites)
    hint = f"did you mean `{guess}`?" if guess else f"put its facts into {project / OWN_SITES / name}.yaml"
    path = ("site",)
    raise SpecError([Problem(f"unknown site `{name}`", document.position(path), path, hint, "unknown_site")])


def single_document(file: Path) -> Document:
    """Read a file that holds one mapping; anything else is a SpecError."""
    first, *more = _parsed(read_text(file), str(file))
    if more:
        raise SpecError([Problem("expected one document in this file", more[0].position(), kind="documents")])
    if not isinstance(first.data, dict):
        raise SpecError([Problem("expected a mapping", first.position(), kind="mapping")])
    return first


_parsed = lru_cache(maxsize=32)(parse_documents)
"""A thousand steps of one process read one profile, and the text is the same: nobody changes what was read."""


def validated(model: type[_ModelT], data: Any, document: Document, *, unrendered: bool = False) -> _ModelT:
    """Validate a document's data, or raise a SpecError; what waits for templates has its defaults."""
    try:
        instance = validate_unrendered(model, data) if unrendered else model.model_validate(data)
    except ValidationError as exc:
        raise SpecError(problems_of(exc, document.position)) from None
    return instance if instance is not None else model()


def _at_home(loaded: LoadedProfile) -> LoadedProfile:
    """Make a relative ``workdir`` of the local host start at the project folder."""
    if not isinstance(loaded.profile.host, LocalHost) or loaded.profile.workdir.startswith("$"):
        return loaded
    workdir = loaded.folder / Path(loaded.profile.workdir).expanduser()
    return replace(loaded, profile=loaded.profile.model_copy(update={"workdir": str(workdir)}))


def _layer(name: str, data: dict[str, Any], document: Document, folder: Path) -> Layer:
    """Return what a profile or site gives to scripts; who builds environments is not theirs to change."""
    fields = {key: data[key] for key in _LAYER_FIELDS if data.get(key) is not None}
    environment = fields.pop("environment", None)
    if isinstance(environment, dict):
        environment = {key: value for key, value in environment.items() if key != "build"}
    if environment:
        fields["environment"] = environment
    return Layer(name, fields, document.position, folder, document.data)


def _unknown_profile(name: str, folder: Path | None, start: Path) -> Problem:
    if folder is None:
        return Problem(
            f"unknown profile `{name}`: there is no profiles/ folder in {start.absolute()} or above",
            hint=f"`dg-slurm init profile {name}` makes one",
            kind="unknown_profile",
        )
    names = sorted({"local", *(file.stem for file in folder.glob("*.yaml"))})
    guess = nearest(name, names)
    hint = f"did you mean `{guess}`?" if guess else "there are: " + ", ".join(names)
    return Problem(f"unknown profile `{name}`: no {folder / name}.yaml", hint=hint, kind="unknown_profile")
