"""Rows of text as lines of a terminal, however narrow: no word is broken inside, so that each can be copied."""

import re
from collections.abc import Sequence

_GAP = "  "
_WORDS = re.compile(r"(?<=\s)|(?<=,)(?=\S)")
_FOLDS = re.compile(r"(?<=__)(?!_)|(?<=/)|(?<=[^\s\d]\.)(?=[^\s\d])|(?<=\s)|(?<=,)")
"""Where a text may go on in the next line: between words, and in one that is too long behind ``__``, ``/``, ``.``."""


def lined(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a table as lines of at most ``width`` characters; columns without any text are left out.

    Where the columns don't fit beside each other, each row is a block of lines of its own.
    """
    kept = [at for at in range(len(titles)) if not rows or any(row[at] for row in rows)]
    texts = [[row[at] for at in kept] for row in [titles, *rows]]
    columns = list(zip(*texts, strict=True))
    widths = [max(map(len, column)) for column in columns]
    least = [
        max(len(piece.rstrip()) for text in column for piece in _FOLDS.split(text)) for column in columns
    ]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        wide = [at for at in range(len(widths)) if widths[at] > least[at]]
        if not wide:
            return _blocks(texts[0], texts[1:])
        widths[max(wide, key=widths.__getitem__)] -= 1
    head, *body = [
        _beside([fold(text, room) for text, room in zip(row, widths, strict=True)], widths) for row in texts
    ]
    rule = _GAP.join("-" * room for room in widths)
    return [*head, rule, *(line for row in body for line in row)]


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


def _beside(cells: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    height = max(map(len, cells))
    filled = [[*cell, *[""] * (height - len(cell))] for cell in cells]
    return [
        _GAP.join(line.rstrip().ljust(room) for line, room in zip(line_of, widths, strict=True)).rstrip()
        for line_of in zip(*filled, strict=True)
    ]


def _blocks(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    room = max(map(len, titles))
    lines = []
    for row in rows:
        lines += [
            "",
            *(f"{title.ljust(room)}{_GAP}{text}" for title, text in zip(titles, row, strict=True) if text),
        ]
    return lines[1:]
