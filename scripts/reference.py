"""Write the reference pages of ``docs/reference/`` from docstrings, JSON Schemas and commands.

``python scripts/reference.py`` writes them; with ``--check`` it writes nothing, and exits with 1 where one has drifted.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import griffe

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "dagster_slurm_components"
GENERATED = "<!-- Written by scripts/reference.py; `make reference` renews it. -->"

PYTHON = {
    "Run jobs from Python": ["ComputeResource", "PayloadArguments", "ComputeJob", "CompletedJob"],
    "The component": ["SlurmScriptComponent"],
    "Executor": ["slurm_executor"],
    "Sensors": ["slurm_jobs_sensor", "parked_hosts_sensor"],
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

YAML = {
    "A component's `defs.yaml`": "DefsFile",
    "A profile": "Profile",
    "A site": "Site",
}
"""The files, and the definition of each; what it refers to follows it."""


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
        yield _table(("field", "what"), [(f"`{name}`", text) for name, text in left.items()])


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
        yield _prose(value)
    elif kind in ("parameters", "attributes", "raises"):
        names = {"parameters": "argument", "attributes": "attribute", "raises": "raises"}
        rows = [(f"`{getattr(item, 'name', None) or item.annotation}`", item.description) for item in value]
        yield _table((names[kind], "what"), rows)
    elif kind in ("returns", "yields"):
        for item in value:
            yield f"{kind.capitalize()}: {_prose(item.description)}"
    elif kind == "examples":
        for _, text in value:
            yield f"Example:\n\n{_prose(text)}"
    elif kind == "admonition":
        yield f"{section.title}:\n\n{_prose(value.description)}"


_CODE = re.compile(r"\.\. code-block:: (\w+)\n\n((?:(?: {4}.*)?\n?)+)")
_PROMPT = re.compile(r"((?:^(?:>>>|\.\.\.) .*\n?(?:^(?!>>>|\.\.\.|\n).+\n?)*)+)", re.MULTILINE)


def _prose(text: str) -> str:
    """Return reStructuredText, as docstrings have it, as Markdown."""

    def block(match: re.Match[str]) -> str:
        lines = [line.removeprefix("    ") for line in match[2].rstrip().splitlines()]
        return f"```{match[1]}\n" + "\n".join(lines) + "\n```\n"

    text = _CODE.sub(block, text.strip() + "\n")
    text = _PROMPT.sub(lambda match: f"```pycon\n{match[1].rstrip()}\n```\n", text)
    return re.sub(r"(?<!`)``(?!`)", "`", text).strip()


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(_prose(cell).replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def yaml_page() -> str:
    """Return the page of every field of every YAML file."""
    schema = json.loads((ROOT / "schemas" / "definitions.schema.json").read_text("utf-8"))["$defs"]
    parts = [
        GENERATED,
        "# YAML: every field",
        "What is left out comes from the profile, or has the default named here. Fields without `default` that are not"
        " marked as required may be left out. Where a value may be a template, `{{ ... }}` stands for it.",
    ]
    shown: set[str] = set()
    for title, name in YAML.items():
        parts.append(f"## {title}")
        parts += _definition(name, schema, shown)
    if missing := schema.keys() - shown:
        raise SystemExit(f"The YAML page leaves out: {', '.join(sorted(missing))}")
    return "\n\n".join(parts) + "\n"


def _definition(name: str, schema: Mapping[str, Any], shown: set[str]) -> Iterator[str]:
    if name in shown:
        return
    shown.add(name)
    one = schema[name]
    described, _, example = one.get("description", "").partition("Example:")
    variants = [case["then"]["$ref"] for case in one.get("allOf", []) if "$ref" in case.get("then", {})]
    yield f"### {_title(name)}"
    if described:
        yield _prose(described)
    if example:
        yield _prose(f"{'Example:'}\n\n" + re.sub(r"^ {4}", "", example.lstrip("\n"), flags=re.MULTILINE))
    if variants:
        yield "One of, by its `type`: " + ", ".join(_link(each) for each in variants) + "."
    else:
        required = set(one.get("required", []))
        yield from _fields_of(one, schema, required)
        for key, field in _properties(one).items():
            if isinstance(field, dict) and "properties" in field:
                yield f"### {_title(name)}: `{key}`"
                yield from _fields_of(field, schema, set(field.get("required", [])))
    for each in [*variants, *_references(one)]:
        yield from _definition(each.rpartition("/")[2], schema, shown)


def _properties(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a model, with those that it has where its type is ours."""
    return {**one.get("properties", {}), **one.get("then", {}).get("properties", {})}


def _fields_of(one: Mapping[str, Any], schema: Mapping[str, Any], required: set[str]) -> Iterator[str]:
    fields = _properties(one)
    rows = [_field(key, _whole(field, schema), key in required) for key, field in fields.items()]
    if rows:
        yield _table(("field", "value", "what"), rows)


def _whole(field: Any, schema: Mapping[str, Any]) -> Any:
    """Return a field; one that refers to the same field of another model, with what stands there."""
    deep = field.get("$ref", "").split("/")[2:] if isinstance(field, dict) else []
    if len(deep) < 2:
        return field
    there: Any = schema
    for key in deep:
        there = there[key]
    return {**_whole(there, schema), **{key: value for key, value in field.items() if key != "$ref"}}


def _field(name: str, field: Any, required: bool) -> tuple[str, str, str]:
    if not isinstance(field, dict):
        return f"`{name}`", "", ""
    links = list(dict.fromkeys(_link(each) for each in _references(field)))
    kinds = field.get("enum") or [case for part in field.get("anyOf", []) for case in part.get("enum", [])]
    value = ", ".join(links) or ", ".join(f"`{kind}`" for kind in kinds)
    if "const" in field:
        value = f"`{field['const']}`"
    elif not value and "type" in field:
        types = field["type"] if isinstance(field["type"], list) else [field["type"]]
        value = types[0]
    what = field.get("description", "")
    if required:
        what += " Required."
    elif field.get("default") not in (None, [], "") and not isinstance(field["default"], dict):
        what += f" Default: `{json.dumps(field['default'])}`."
    if "const" not in field and (examples := field.get("examples")):
        what += (
            " Example: " + ", ".join(f"`{json.dumps(each, ensure_ascii=False)}`" for each in examples) + "."
        )
    return f"`{name}`", value, what


_DEPTH = 2
"""Slashes of a reference to a model: ``#/$defs/Script``."""


def _references(tree: Any) -> Iterator[str]:
    """Yield what a schema refers to, in order."""
    if isinstance(tree, dict):
        if isinstance(reference := tree.get("$ref"), str) and reference.count("/") == _DEPTH:
            yield reference
        for key, each in tree.items():
            if key not in ("examples", "default"):
                yield from _references(each)
    elif isinstance(tree, list):
        for each in tree:
            yield from _references(each)


def _title(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize()


def _link(reference: str) -> str:
    title = _title(reference.rpartition("/")[2])
    return f"[{title}](#{title.lower().replace(' ', '-')})"


def cli_page() -> str:
    """Return the page of every command."""
    # Imported here: it loads all commands.
    from dagster_slurm_components.cli.main import main  # noqa: PLC0415

    parts = [GENERATED, "# `dg-slurm`: every command"]
    parts += _command(main, click.Context(main, info_name="dg-slurm"))
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    pieces = " ".join(command.collect_usage_pieces(context))
    if context.parent is not None:
        yield f"## `{context.command_path}`"
    yield f"```console\n$ {context.command_path} {pieces}\n```"
    if command.help:
        yield _prose(re.sub(r"\x08\n?", "", inspect.cleandoc(command.help)))
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in record[0]:
            rows.append((f"`{record[0]}`", record[1]))
    if rows:
        yield _table(("option", "what"), rows)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _command(child, click.Context(child, info_name=name, parent=context))


PAGES: Mapping[str, Callable[[], str]] = {"python.md": python_page, "yaml.md": yaml_page, "cli.md": cli_page}


def main() -> None:
    """Write or check the pages."""
    only_check = sys.argv[1:] == ["--check"]
    drifted = False
    for name, page in PAGES.items():
        file = ROOT / "docs" / "reference" / name
        text = page()
        if (file.read_text("utf-8") if file.is_file() else "") == text:
            continue
        drifted = True
        if only_check:
            print(f"docs/reference/{name} is not what `make reference` writes.", file=sys.stderr)
        else:
            file.write_text(text, encoding="utf-8")
            print(f"wrote docs/reference/{name}")
    sys.exit(1 if drifted and only_check else 0)


if __name__ == "__main__":
    main()
