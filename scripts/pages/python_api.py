"""The page of the Python API, from docstrings."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import griffe

from pages.text import GENERATED, PACKAGE, ROOT, prose, table

PYTHON = {
    "Run jobs from Python": ["ComputeResource", "PayloadArguments", "ComputeJob", "CompletedJob"],
    "Files as values": ["HostPathIOManager"],
    "The component": ["SlurmScriptComponent"],
    "Executor": ["slurm_executor"],
    "Sensors and schedules": ["slurm_jobs_sensor", "parked_hosts_sensor", "slurm_maintenance"],
    "Launchers": ["BashLauncher", "SrunLauncher", "TorchrunLauncher", "RayLauncher"],
    "Environments": [
        "CurrentEnvironment",
        "PathEnvironment",
        "ModulesEnvironment",
        "UvEnvironment",
        "PixiEnvironment",
        "CondaEnvironment",
        "ContainerEnvironment",
    ],
    "Resources": ["Resources"],
    "A launcher or an environment of your own": [
        "LauncherSpec",
        "launchers.base.LaunchContext",
        "launchers.base.LaunchPlan",
        "launchers.testing.run_launcher",
        "EnvironmentSpec",
    ],
    "Errors": ["DagsterSlurmError", "SpecError"],
}
"""What each section of the page tells of: public names, and names of modules below the package."""

_GOOGLE: griffe.DocstringOptions = {"returns_multiple_items": False, "returns_named_value": False}
_RETURNED = {"ComputeJob", "CompletedJob"}
"""Classes that nobody makes by hand: the arguments of their constructors are ours."""


def python_page() -> str:
    """Return the page of the Python API."""
    package = griffe.load(PACKAGE, search_paths=[ROOT], docstring_parser="google", docstring_options=_GOOGLE)
    parts = [GENERATED, "# Python API", f"Names without a module are imported from `{PACKAGE}`."]
    for title, names in PYTHON.items():
        parts.append(f"## {title}")
        for name in names:
            value = _value(name)
            path = f"{value.__module__}.{value.__name__}"
            described = package[path.removeprefix(f"{PACKAGE}.")]
            parts.append(f"### `{value.__name__}`" + (f" (`{value.__module__}`)" if "." in name else ""))
            parts += _described(described, _fields(value))
            parts += _members(described)
    missing = {*importlib.import_module(PACKAGE).__all__} - {
        name for names in PYTHON.values() for name in names
    }
    if missing:
        raise SystemExit(f"The Python page leaves out: {', '.join(sorted(missing))}")
    return "\n\n".join(parts) + "\n"


def _value(name: str) -> Any:
    module, _, short = f"{PACKAGE}.{name}".rpartition(".")
    return getattr(importlib.import_module(module), short)


def _members(one: griffe.Object | griffe.Alias) -> Iterator[str]:
    """Yield the paragraphs about what a class offers."""
    for member in one.members.values() if one.is_class else ():
        if member.has_docstring and not member.name.startswith("_") and not member.is_class:
            yield f"#### `{one.name}.{member.name}`"
            yield from _described(member, {})


def _fields(value: Any) -> dict[str, str]:
    """Return the fields of a pydantic model whose descriptions stand beside them, not in the docstring."""
    fields = getattr(value, "model_fields", {})
    return {name: field.description for name, field in fields.items() if field.description}


def _described(one: griffe.Object | griffe.Alias, fields: Mapping[str, str]) -> Iterator[str]:
    if isinstance(one, griffe.Function):
        yield f"```python\n{_signature(one)}\n```"
    sections = one.docstring.parsed if one.docstring else []
    told = {item.name for section in sections if section.kind.value == "attributes" for item in section.value}
    for section in sections:
        if not (one.name in _RETURNED and section.kind.value == "parameters"):
            yield from _section(section)
    if left := {name: text for name, text in fields.items() if name not in told}:
        yield table(("field", "what"), [(f"`{name}`", text) for name, text in left.items()])


def _signature(function: griffe.Function) -> str:
    """Return a call as one writes it, without ``self``."""
    words, star = [], False
    for parameter in function.parameters:
        if parameter.name in ("self", "cls"):
            continue
        kind = parameter.kind
        if kind is griffe.ParameterKind.keyword_only and not star:
            words.append("*")
            star = True
        stars = {griffe.ParameterKind.var_keyword: "**", griffe.ParameterKind.var_positional: "*"}
        shown = f"{stars.get(kind, '')}{parameter.name}"
        if parameter.annotation is not None:
            shown += f": {parameter.annotation}"
        if parameter.default is not None and kind not in stars:
            shown += f" = {parameter.default}"
        words.append(shown)
    one_line = f"{function.name}({', '.join(words)}) -> {function.returns}"
    if len(one_line) <= 100:
        return one_line
    body = "".join(f"    {word},\n" for word in words)
    return f"{function.name}(\n{body}) -> {function.returns}"


def _section(section: griffe.DocstringSection) -> Iterator[str]:
    kind, value = section.kind.value, section.value
    if kind == "text":
        yield prose(value)
    elif kind in ("parameters", "attributes", "raises"):
        names = {"parameters": "argument", "attributes": "attribute", "raises": "raises"}
        rows = [(f"`{getattr(item, 'name', None) or item.annotation}`", item.description) for item in value]
        yield table((names[kind], "what"), rows)
    elif kind in ("returns", "yields"):
        for item in value:
            yield f"{kind.capitalize()}: {prose(item.description)}"
    elif kind == "examples":
        for _, text in value:
            yield f"Example:\n\n{prose(text)}"
    elif kind == "admonition":
        yield f"{section.title}:\n\n{prose(value.description)}"
