"""What one run asks for, on top of all that is written: by the config of a script's op, and by its tags."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from pydantic import ValidationError

from dagster_slurm_components.spec.merge import Layer, merge
from dagster_slurm_components.spec.place import KEY, KeyPath, Position
from dagster_slurm_components.spec.problems import Problem, SpecError, problems_of
from dagster_slurm_components.spec.script import IN_A_RUN, partial_errors
from dagster_slurm_components.spec.source import parse_documents
from dagster_slurm_components.spec.templates import render

TAGS = "dagster-slurm/"
"""How a run's tags begin that ask for something: ``dagster-slurm/resources.mem``."""
ASKED = "job/asked_in_run"
"""The figure of a job that tells what its run asked for."""
_CONFIG, _TAG = "the run's config, ", "the run's tag "


@dataclass(frozen=True)
class RunOverride:
    """What a run asks for: the profile that takes the place of the chosen one, and layers above all others."""

    profile: str | None = None
    layers: tuple[Layer, ...] = ()

    @cached_property
    def figures(self) -> Mapping[str, str]:
        """What a job's metadata tell of it, with templates as they were written; nothing where it asks for nothing."""
        asked = merge([replace(layer, data=layer.written or {}) for layer in self.layers]).data
        return {ASKED: json.dumps(asked, ensure_ascii=False)} if asked else {}


NOTHING_ASKED = RunOverride()


def run_override(config: Mapping[str, Any], tags: Mapping[str, str]) -> RunOverride:
    """Return what a run asks for; what its config says wins over its tags.

    Templates are rendered as those of a script: ``env``, and what is known of the partition. A SpecError tells the
    mistakes, each with the tag, or the place in the config, that it stands in.

    Example:
        >>> run_override({"args": ["--fast"]}, {"dagster-slurm/resources.mem": "64G"}).figures
        {'job/asked_in_run': '{"resources": {"mem": "64G"}, "args": ["--fast"]}'}
    """
    layers, profile = [], None
    for name, written in ((_TAG, _tree(tags)), (_CONFIG, config)):
        if written:
            data = _checked(name, written)
            profile = data.pop("profile", profile)
            layers.append(Layer(name.strip(" ,"), data, partial(_position, name), None, written))
    return RunOverride(profile, tuple(layers)) if layers else NOTHING_ASKED


def _checked(name: str, written: Mapping[str, Any]) -> dict[str, Any]:
    position = partial(_position, name)
    data: dict[str, Any] = render(dict(written), position, partitioned=True)
    if wrong := partial_errors(data, (*IN_A_RUN, "profile"), "a run"):
        raise SpecError(problems_of(ValidationError.from_exception_data("run", wrong), position))
    if not isinstance(data.get("profile", ""), str):
        raise SpecError([Problem.at(position, ("profile",), "expected the name of a profile")])
    return data


def _position(name: str, path: KeyPath) -> Position:
    words = ".".join(str(part) for part in path if part != KEY)
    return Position(f"{name}`{TAGS if name == _TAG else ''}{words}`", 0, 0)


def _tree(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return what tags say as YAML's tree: ``resources.mem`` is ``mem`` in ``resources``, and ``[a, b]`` is a list."""
    tree: dict[str, Any] = {}
    for tag in sorted(tag for tag in tags if tag.startswith(TAGS)):
        *path, last = tag.removeprefix(TAGS).split(".")
        below: Any = tree
        for part in path:
            below = below.setdefault(part, {}) if isinstance(below, dict) else None
        if isinstance(below, dict):  # else text stands where a mapping should, and is told of
            is_list = tags[tag].startswith("[") and path[:1] != ["env"]
            below[last] = parse_documents(tags[tag], f"{_TAG}`{tag}`")[0].data if is_list else tags[tag]
    return tree
