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
_PROFILE = "profile"
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
        if self.profile is not None:
            asked = {_PROFILE: self.profile, **asked}
        return {ASKED: json.dumps(asked, ensure_ascii=False)} if asked else {}


NOTHING_ASKED = RunOverride()


def run_override(config: Mapping[str, Any], tags: Mapping[str, str]) -> RunOverride:
    """Return what a run asks for; what its config says wins over its tags.

    Templates are rendered as those of a script: ``env``, and what is known of the partition. A SpecError tells all
    mistakes, each with the tag, or the place in the config, that it stands in.

    Example:
        >>> run_override({"args": ["--fast"]}, {"dagster-slurm/resources.mem": "64G"}).figures
        {'job/asked_in_run': '{"resources": {"mem": "64G"}, "args": ["--fast"]}'}
    """
    problems: list[Problem] = []
    layers, profile = [], None
    for name, written in ((_TAG, _tree(tags)), (_CONFIG, config)):
        if not written:
            continue
        try:
            layer = _layer(name, written)
        except SpecError as error:
            problems += error.problems
            continue
        own = {key: value for key, value in layer.data.items() if key != _PROFILE}
        profile = layer.data.get(_PROFILE, profile)
        layers.append(replace(layer, data=own, written={key: written[key] for key in own}))
    if problems:
        raise SpecError(problems)
    return RunOverride(profile, tuple(layers)) if layers else NOTHING_ASKED


def _layer(name: str, written: Mapping[str, Any]) -> Layer:
    position = partial(_position, name)
    data = render(written, position, partitioned=True)
    if wrong := partial_errors(data, (*IN_A_RUN, _PROFILE), "a run"):
        raise SpecError(problems_of(ValidationError.from_exception_data("run", wrong), position))
    if not isinstance(data.get(_PROFILE, ""), str):
        raise SpecError([Problem.at(position, (_PROFILE,), "expected the name of a profile")])
    return Layer(name.strip(" ,"), data, position, None, written)


def _position(name: str, path: KeyPath) -> Position:
    words = ".".join(str(part) for part in path if part != KEY)
    return Position(f"{name}`{TAGS if name == _TAG else ''}{words}`", 0, 0)


def _tree(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return what tags say as the tree that YAML would give: ``resources.mem`` is ``mem`` in ``resources``."""
    tree: dict[str, Any] = {}
    for tag in sorted(tag for tag in tags if tag.startswith(TAGS)):
        *path, last = tag.removeprefix(TAGS).split(".")
        below: Any = tree
        for part in path:
            below = below.setdefault(part, {}) if isinstance(below, dict) else None
        if isinstance(below, dict):  # else text stands where a mapping should, and is told of
            below[last] = _value(tag, tags[tag])
    return tree


def _value(tag: str, text: str) -> Any:
    """Read a tag's value: text, or a list as YAML writes it in one line; a variable is always text."""
    if not text.startswith("[") or tag.startswith(f"{TAGS}env."):
        return text
    return parse_documents(text, f"{_TAG}`{tag}`")[0].data
