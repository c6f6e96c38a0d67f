"""Rows of text as lines of a terminal, however narrow: no word is broken inside, so that each can be copied."""

import re
from collections.abc import Sequence
from itertools import zip_longest

_WORDS = re.compile(r"(?<=\s)|(?<=,)(?=\S)")
_FOLDS = re.compile(r"(?<=__)(?!_)|(?<=/)|(?<=[^\s\d]\.)(?=[^\s\d])|(?<=\s)|(?<=,)")
"""Where a text may go on in the next line: between words, and in one that is too long behind ``__``, ``/``, ``.``."""


def lined(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a table as lines of at most ``width`` characters; columns without any text are left out.

    Where the columns don't fit beside each other, each row is a block of lines of its own.
    """
    kept = [at for at in range(len(titles)) if not rows or any(row[at] for row in rows)]
    head, *body = [[row[at] for at in kept] for row in [titles, *rows]]
    for gap in ("  ", " "):
        widths = _fitting(list(zip(head, *body, strict=True)), width - len(gap) * (len(head) - 1))
        if widths:
            rule = gap.join("-" * room for room in widths)
            below = [line for row in body for line in _beside(row, widths, gap)]
            return [*_beside(head, widths, gap), rule, *below]
    longest = max(map(len, head))
    blocks = [
        [f"{title:{longest}}  {text}" for title, text in zip(head, row, strict=True) if text] for row in body
    ]
    return [line for block in blocks for line in ["", *block]][1:]


def fold(text: str, width: int) -> list[str]:
    """Return a text as lines of at most ``width`` characters, unless one word alone is longer.

    Example:
        >>> fold("digits__split profiles/local.yaml:4:21", 14)
        ['digits__split ', 'profiles/', 'local.', 'yaml:4:21']
    """
    lines = [""]
    for word in _WORDS.split(text):
        for piece in [word] if len(word.rstrip()) <= width else _FOLDS.split(word):
            if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
                lines.append("")
            lines[-1] += piece
    return lines


def _fitting(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return the widths of columns that fit together, the widest folded first; none where words are too long."""
    widths = [max(map(len, column)) for column in columns]
    least = [
        max(len(piece.rstrip()) for text in column for piece in _FOLDS.split(text)) for column in columns
    ]
    while sum(widths) > room:
        wide = [at for at in range(len(widths)) if widths[at] > least[at]]
        if not wide:
            return []
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _beside(row: Sequence[str], widths: Sequence[int], gap: str) -> list[str]:
    cells = zip_longest(*(fold(text, room) for text, room in zip(row, widths, strict=True)), fillvalue="")
    return [
        gap.join(f"{text.rstrip():{room}}" for text, room in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
