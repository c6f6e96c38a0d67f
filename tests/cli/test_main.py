"""What the package and the documents say of `dg-slurm` and `dg` is true: each command that they name can be typed."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from dagster_dg_cli.cli import cli as dg

from dagster_slurm_components.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = r"(?:dg-slurm|dg)"
QUOTED = re.compile(rf"`+\$? ?({PROGRAM} [^`]+)`+")
LINE = re.compile(rf"^(?:\s*|.*\$ |.*(?:: |run |\buv run |&& ))({PROGRAM} (?![-A-Za-z]+[,.;:)])[^`]*)$")
"""A command that ends a line of code, or of a message: ``To cancel it: dg-slurm jobs cancel 3``."""
FENCE = re.compile(r"^( *)```(?:console|bash|shell|sh|yaml)\b[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


class Texts(ast.NodeVisitor):
    """What a source file says: its strings, with a word for each value that is filled in."""

    def __init__(self, file: Path) -> None:
        self.found: list[str] = []
        self.visit(ast.parse(file.read_text("utf-8")))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = [part.value if isinstance(part, ast.Constant) else "WORD" for part in node.values]
        self.found.append("".join(map(str, parts)))

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.found.append(node.value)


def said(file: Path) -> Iterator[str]:
    """Yield the commands that a file names."""
    if file.suffix == ".py":
        for piece in Texts(file).found:
            yield from QUOTED.findall(piece)
            yield from (found[1] for line in piece.splitlines() if (found := LINE.match(line)))
        return
    text = file.read_text("utf-8")
    # A quotation may go on in the next line.
    inline = FENCE.sub("", text) if file.suffix == ".md" else text
    yield from (" ".join(found.split()) for found in QUOTED.findall(inline))
    code = [block for _, block in FENCE.findall(text)] if file.suffix == ".md" else [text]
    for block in code:
        for line in block.replace("\\\n", " ").splitlines():
            if found := LINE.match(line):
                yield found[1]


def files() -> list[Path]:
    package = [
        file
        for folder in ("dagster_slurm_components", "slurm_testcluster")
        for ending in ("py", "sh", "jinja")
        for file in (ROOT / folder).rglob(f"*.{ending}")
    ]
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md")]
    return sorted([*package, *documents, *ROOT.glob("template/**/*.jinja"), ROOT / "copier.yml"])


def words_of(command: str) -> list[str]:
    """Return a command's words, up to what a shell, a template or a sentence makes of its rest."""
    plain = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "WORD", command).split("' }}")[0]
    try:
        words = shlex.split(plain, comments=True)
    except ValueError:  # a quotation that ends behind the command
        words = plain.replace('"', "").split()
    end = next((n for n, word in enumerate(words) if word in {"|", "&&", ";", ">"}), len(words))
    # "up|down" is either, and `[OPTIONS]` is none.
    return [word.rstrip(";,").split("|")[0] for word in words[:end] if not re.match(r"\[|COMMAND$", word)]


def wrong(words: list[str]) -> str | None:
    """Return what the program's own parser has against a command; what is left out, as in a mention, is no matter."""
    program, *rest = words
    if words[:2] == ["dg-slurm", "launch"] and "--help" not in rest and len(rest) > 1:
        program = "dg"  # whose options they are
    command: click.Command = main if program == "dg-slurm" else dg
    context = click.Context(command, info_name=program)
    while True:
        options = {name for each in command.params for name in each.opts + each.secondary_opts}
        options |= {*context.help_option_names}
        try:
            _, left, _ = command.make_parser(context).parse_args(list(rest))
        except click.UsageError as error:
            return error.format_message()
        if not isinstance(command, click.Group):
            return f"too many words: {left}" if left else None
        # The commands of `dg scaffold defs` are the components that a project knows; a template may decide the word.
        if not left or context.command_path == "dg scaffold defs" or left[0] == "WORD":
            return None
        found = command.get_command(context, left[0])
        if found is None:
            return f"no such command: {left[0]}"
        command, rest = found, left[1:]
        context = click.Context(command, info_name=left[0], parent=context)


def test_each_command_that_is_named_can_be_typed() -> None:
    commands = [(file, command) for file in files() for command in said(file)]
    assert len(commands) > 250, "the check sees what it should"
    assert [
        f"{file.relative_to(ROOT)}: {command}: {why}"
        for file, command in commands
        if (why := wrong(words_of(command)))
    ] == []


@pytest.mark.parametrize(
    "command",
    ["dg-slurm docter", "dg-slurm jobs list --al", "dg-slurm status leo", "dg lunch", "dg launch --asset x"],
)
def test_one_that_does_not_exist_is_found(command: str) -> None:
    assert wrong(words_of(command))
