"""Markdown of the generated pages: prose from docstrings, and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "dagster_slurm_components"
GENERATED = "<!-- Written by scripts/reference.py; `make reference` renews it. -->"

_CODE = re.compile(r"\.\. code-block:: (\w+)\n\n((?:(?: {4}.*)?\n?)+)")
_PROMPT = re.compile(r"((?:^(?:>>>|\.\.\.) .*\n?(?:^(?!>>>|\.\.\.|\n).+\n?)*)+)", re.MULTILINE)


def prose(text: str) -> str:
    """Return reStructuredText, as docstrings have it, as Markdown."""

    def block(match: re.Match[str]) -> str:
        lines = [line.removeprefix("    ") for line in match[2].rstrip().splitlines()]
        return f"```{match[1]}\n" + "\n".join(lines) + "\n```\n"

    text = _CODE.sub(block, text.strip() + "\n")
    text = _PROMPT.sub(lambda match: f"```pycon\n{match[1].rstrip()}\n```\n", text)
    return re.sub(r"(?<!`)``(?!`)", "`", text).strip()


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table of Markdown; cells are reStructuredText."""

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(prose(cell).replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])
