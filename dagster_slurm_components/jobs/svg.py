"""The few shapes of SVG that pictures of jobs are made of, and a picture as Markdown that Dagster draws.

Dagster (1.13) draws an SVG in Markdown as an image of a data URI, and in no other way. It does not tell the image its
theme: all colours have a contrast of at least 3 to 1 on white and on Dagster's darkest grey, and those of lines are the
four of Okabe and Ito's palette, for all kinds of colour vision, that have it.
"""

import base64
import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Blue, vermilion, green, purple."""
GREY = "#767676"
_UNPRINTABLE = re.compile("[^\\t\\n\\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML can't hold; a node's name comes from another machine."""


def tag(name: str, *inner: str, **attributes: object) -> str:
    """Return an element; an underscore in an attribute's name is a hyphen.

    Example:
        >>> tag("path", d="M0 0h9", stroke_width=2)
        '<path d="M0 0h9" stroke-width="2"/>'
    """
    words = "".join(
        f" {key.rstrip('_').replace('_', '-')}={quoteattr(str(each))}" for key, each in attributes.items()
    )
    return f"<{name}{words}>{''.join(inner)}</{name}>" if inner else f"<{name}{words}/>"


def text(x: float, y: float, words: str, **attributes: object) -> str:
    """Return a text, grey."""
    return tag("text", escape(_UNPRINTABLE.sub("", words)), x=number(x), y=number(y), fill=GREY, **attributes)


def stroke(d: str, colour: str = GREY, **attributes: object) -> str:
    """Return a line along a path."""
    return tag("path", d=d, stroke=colour, **attributes)


def svg(width: int, height: int, *inner: str, **attributes: object) -> str:
    """Return a whole picture."""
    return tag("svg", *inner, xmlns="http://www.w3.org/2000/svg", width=width, height=height, **attributes)


def image(title: str, picture: str) -> str:
    """Return a picture as Markdown."""
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()})"


def path(values: Sequence[float | None], *, left: float, width: float, bottom: float, scale: float) -> str:
    """Return the line through the middles of columns that fill a width, in SVG's short commands.

    A value of 1 is drawn ``scale`` above the bottom. The line breaks where there is no value.
    """
    words: list[str] = []
    last: tuple[int, int] | None = None
    for column, value in enumerate(values):
        if value is None:
            last = None
            continue
        x, y = round(left + (column + 0.5) * width / len(values)), round(bottom - value * scale)
        if last is None:
            words.append(f"M{x} {y}h1")  # a column alone is seen as well
            last = x + 1, y
        words.append(_to(x - last[0], y - last[1]))
        last = x, y
    return "".join(words)


def _to(right: int, down: int) -> str:
    return f"h{right}" if not down else f"l{right}{down}" if down < 0 else f"l{right} {down}"


def number(value: float) -> str:
    """Return a number as short as it can be."""
    return f"{value:.1f}".removesuffix(".0")
