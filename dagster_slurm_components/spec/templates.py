"""``{{ ... }}`` in the text of profiles and included files, and what templates know."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

from dagster_slurm_components.spec.place import KeyPath, Locate, texts, with_templates
from dagster_slurm_components.spec.problems import Problem, SpecError, did_you_mean

_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_INPUT = re.compile(r"\binputs(?:\.|\[\s*['\"])(\w+)", re.ASCII)
_NOT_RENDERED = "the template can't be rendered: "
_WHOLE = re.compile(r"\s*\{\{((?:(?!\}\}).)*)\}\}\s*", re.DOTALL)


def is_template(value: object) -> bool:
    """Tell whether a value is text that holds a template."""
    return isinstance(value, str) and ("{{" in value or "{%" in value) and _TEMPLATE.search(value) is not None


class _UnsetVariableError(Exception):
    """A template asks for an environment variable that isn't set; the argument is its name."""


class _Environment:
    """What templates know as ``env``: ``env('X')``, ``env('X', default)`` and ``env.X``."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def __call__(self, name: str, *default: Any) -> Any:
        if name in self._variables:
            return self._variables[name]
        if default:
            return default[0]
        raise _UnsetVariableError(name)

    def __getitem__(self, name: str) -> Any:
        # Jinja tries attributes first; a `__getattr__` would answer its probe for `unsafe_callable` too.
        return self(name)


@cache
def _jinja() -> Any:
    # Imported on use: most files hold no template, and jinja2 is not needed to check them.
    from jinja2 import StrictUndefined  # noqa: PLC0415
    from jinja2.sandbox import SandboxedEnvironment  # noqa: PLC0415

    return SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


PARTITION = frozenset({"partition_key", "partition_keys", "partition", "partition_window"})
"""What templates know of a step's partition. Such a template waits until the step runs."""
INPUTS = "inputs"
"""What templates know of where inputs are on the host. Such a template waits until they are there."""
_WAITING = frozenset({"args", "command", "env", "inputs", "outputs"})
"""The fields of a script whose templates may wait."""

Renderer = Callable[[Any, Locate], Any]
"""Renders the templates of a raw tree; problems are told at the places that ``Locate`` finds."""


def keep(tree: Any, position_of: Locate) -> Any:
    """Return a raw tree with its templates as they are: the ``Renderer`` of checks without Dagster."""
    return tree


def render(
    tree: Any,
    position_of: Locate,
    *,
    variables: Mapping[str, str] = os.environ,
    scope: Mapping[str, Any] | None = None,
    partitioned: bool = False,
) -> Any:
    """Return a raw tree with its templates rendered.

    A text that is one template and nothing else becomes the template's value; any other becomes text. ``scope`` has
    further names for templates. In a ``partitioned`` tree, a script's, those of the partition stay: ``fill_waiting``
    renders them. A SpecError tells of each variable that isn't set and each template that can't be
    rendered, at the places that ``position_of`` finds.
    """
    problems: list[Problem] = []
    names = {"env": _Environment(variables), **(scope or {})}

    def rendered(text: str, path: KeyPath) -> Any:
        if not is_template(text):
            return text
        try:
            if partitioned and _waits(text):
                if not _may_wait(path):
                    problems.append(_too_early(position_of, path, text))
                    return text
                return _rendered_where(text, lambda piece: not _waits(piece), names)
            return _render_text(text, names)
        except _UnsetVariableError as exc:
            message = f"the environment variable `{exc}` is not set"
            hint = f"set it, or give a default: {{{{ env('{exc}', 'default') }}}}"
            problems.append(Problem.at(position_of, path, message, hint, "unset_variable"))
        except _template_errors() as exc:
            problems.append(Problem.at(position_of, path, f"{_NOT_RENDERED}{exc}", None, "template"))
        return text

    return _replaced(tree, rendered, problems)


def _replaced(tree: Any, replace: Callable[[str, KeyPath], Any], problems: list[Problem]) -> Any:
    """Return a tree with its texts replaced, or itself; the problems that this brings to light are raised together."""
    result = with_templates(tree, replace)
    if problems:
        raise SpecError(problems)
    return tree if result == tree else result  # most scripts have no template, and each is kept


def _render_text(text: str, names: Mapping[str, Any]) -> Any:
    whole = _WHOLE.fullmatch(text)
    if whole is None:
        return _jinja().from_string(text).render(names)
    value = _jinja().compile_expression(whole[1], undefined_to_none=False)(**names)
    return str(value) if type(value).__name__.endswith("Undefined") else value


def fill_waiting(
    tree: Any,
    position_of: Locate,
    names: Mapping[str, Any],
    missing: str,
    *,
    literal: Callable[[KeyPath, str], str] = lambda path, text: text,
) -> Any:
    """Return a tree with those templates rendered that waited for the partition; or, with its names, for the inputs.

    ``names`` has what there is of them. A SpecError tells, with ``missing`` as its advice, of what there is not.
    ``literal`` says how what a template gave is written at a path, so that it means itself there.
    """
    problems: list[Problem] = []
    wanted = _waits if INPUTS in names else _of_partition_alone

    def rendered(text: str, path: KeyPath) -> Any:
        try:
            if not is_template(text):
                return text
            return _rendered_where(text, wanted, names, partial(literal, path))
        except _template_errors() as exc:
            problems.append(Problem.at(position_of, path, f"{_NOT_RENDERED}{exc}", missing, "template"))
            return text

    return _replaced(tree, rendered, problems)


def _waits(text: str) -> bool:
    """Whether a template needs to know the partition, or where the inputs are."""
    return ("partition" in text or INPUTS in text) and not (PARTITION | {INPUTS}).isdisjoint(_names_in(text))


def inputs_in(text: str) -> set[str]:
    """Return the names of the inputs that the templates of a text ask for.

    >>> inputs_in("--table={{ inputs.table }}")
    {'table'}
    """
    asked = (name for piece in _TEMPLATE.findall(text) for name in _INPUT.findall(piece))
    return {name for name in asked if not hasattr(dict, name)}  # `inputs.get("table", "none")`


def _of_partition_alone(text: str) -> bool:
    return _waits(text) and INPUTS not in _names_in(text)


def _names_in(text: str) -> set[str]:
    from jinja2.meta import find_undeclared_variables  # noqa: PLC0415

    return find_undeclared_variables(_jinja().parse(text))


def asks_for_profile(tree: Any) -> bool:
    """Whether a raw tree has templates with values of the profile: they are rendered when definitions are loaded."""
    return any(is_template(text) and "profile" in _names_in(text) for text, _ in texts(tree))


def _rendered_where(
    text: str, wanted: Callable[[str], bool], names: Mapping[str, Any], literal: Callable[[str], str] = str
) -> str:
    """Render those templates of a text that are wanted; statements (``{% if ... %}``) make the text one template."""
    if "{%" in text:
        jinja = _jinja().overlay(finalize=lambda value: literal(str(value)))
        return str(jinja.from_string(text).render(names)) if wanted(text) else text
    return _TEMPLATE.sub(
        lambda piece: literal(str(_render_text(piece[0], names))) if wanted(piece[0]) else piece[0], text
    )


def _may_wait(path: KeyPath) -> bool:
    return not _WAITING.isdisjoint(path[2:3] if path[:1] == ("profiles",) else path[:1])


def _too_early(position_of: Locate, path: KeyPath, text: str) -> Problem:
    message, hint = (
        "inputs are known only when the step runs",
        "they can be used in `args`, `command` and `env`",
    )
    if _of_partition_alone(text):
        message = "the partition is known only when the step runs"
        hint = "it can be used in `args`, `command`, `env`, `inputs` and `outputs`"
    return Problem.at(position_of, path, message, hint, "template")


def syntax_problems(tree: Any, position_of: Locate, *, partitioned: bool = False) -> Iterator[Problem]:
    """Yield the templates of a raw tree that are no templates, or ask for a partition where none is known."""
    for text, path in texts(tree):
        if is_template(text):
            try:
                _jinja().parse(text)
            except _template_errors() as exc:
                yield Problem.at(position_of, path, f"{_NOT_RENDERED}{exc}", None, "template")
            else:
                if partitioned and not _may_wait(path) and _waits(text):
                    yield _too_early(position_of, path, text)


def _template_errors() -> tuple[type[Exception], ...]:
    from jinja2 import TemplateError  # noqa: PLC0415

    return (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, MemoryError)


class Values(dict[str, Any]):
    """A mapping that templates read by dots; an unknown name is an error that says which names there are.

    ``{{ profile.env.get('NAME', 'default') }}`` is for what may be missing.
    """

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self._name = name
        super().__init__({key: _nested(f"{name}.{key}", value) for key, value in values.items()})

    def __missing__(self, key: str) -> Any:
        raise _unknown(self._name, key, self)


def _nested(name: str, value: Any) -> Any:
    return Values(name, value) if isinstance(value, Mapping) else value


def _unknown(name: str, key: str, values: Mapping[str, Any]) -> ValueError:
    # Jinja tries attributes first, and takes an AttributeError or a LookupError for "not there".
    hint = did_you_mean(key, values)
    return ValueError(f"`{name}` has no `{key}`" + (f"; {hint}" if hint else ""))


class LazyValues:
    """Values that templates read by dots; those that functions make are made when the first template asks for them.

    So a template that asks for ``profile.env.DATA_DIR`` needs none of the secrets that the rest of a profile names.
    It is no mapping, for one that holds nothing yet would answer ``get`` with the default.
    """

    def __init__(self, name: str, read: Callable[[], Mapping[str, Any]]) -> None:
        self._name = name
        self._read = cache(read)
        self._values: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        known = self._read()
        if key not in known:
            raise _unknown(self._name, key, known)
        if key not in self._values:
            value = known[key]() if callable(known[key]) else known[key]
            self._values[key] = _nested(f"{self._name}.{key}", value)
        return self._values[key]
