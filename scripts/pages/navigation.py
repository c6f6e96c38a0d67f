"""The navigation of the documentation site, from the one list of pages: ``docs/README.md``."""

from __future__ import annotations

import re

from pages.text import ROOT

MARK = "# Written from docs/README.md by `make reference`.\nnav:\n"
HEADING = re.compile(r"^(#{2,3}) (.+)$")
PAGE = re.compile(r"^\* \[([^]]+)\]\(([^):#]+\.md)\)")


def navigation(readme: str) -> str:
    r"""Return the value of ``nav`` in ``mkdocs.yml``: a section for each heading, a page for each list item.

    >>> print(navigation("## How\n* [Log in](how-to/logins.md) by key."), end="")
      - Start: README.md
      - "How":
        - "Log in": how-to/logins.md
    """
    lines, depth = ["  - Start: README.md"], 1
    for line in readme.splitlines():
        if heading := HEADING.match(line):
            depth = len(heading[1])
            lines.append(f'{"  " * (depth - 1)}- "{heading[2]}":')
        elif page := PAGE.match(line):
            title = page[1].replace("`", "")
            lines.append(f'{"  " * depth}- "{title}": {page[2]}')
    return "\n".join(lines) + "\n"


def with_navigation() -> str:
    """Return ``mkdocs.yml`` as it has to be."""
    before, mark, _ = (ROOT / "mkdocs.yml").read_text("utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"mkdocs.yml lacks the lines after which its navigation is written:\n{MARK}")
    return before + mark + navigation((ROOT / "docs" / "README.md").read_text("utf-8"))
