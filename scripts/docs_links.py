"""A Markdown extension of the documentation site: links to files beside ``docs/`` lead to the repository.

``[the example](../../examples/digits)`` works on a forge as it stands. On the site that file is not there, so the link
gets the repository's address (``DOCS_REPOSITORY``) before it; where none is known, its text stays without a link.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from markdown import Extension, Markdown
from markdown.treeprocessors import Treeprocessor

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

BEFORE_OTHERS = 15
"""MkDocs looks at links with priority 0: it then finds whole addresses. Links become elements with priority 20."""


OUT = ("../../", "../examples/")
"""How links begin that lead out of the folder of documents: in its folders, and on its first page."""


class RepositoryLinks(Treeprocessor):
    """Rewrites links that lead out of the folder of documents, which has two levels."""

    def __init__(self, md: Markdown, repository: str) -> None:
        super().__init__(md)
        self.repository = repository.rstrip("/")

    def run(self, root: Element) -> None:
        """Change the links of one page."""
        for link in root.iter("a"):
            target = link.get("href", "")
            if target.startswith(OUT):
                path = posixpath.normpath(target.removeprefix("../").removeprefix("../"))
                if self.repository:
                    link.set("href", f"{self.repository}/blob/main/{path}")
                else:
                    del link.attrib["href"]


class RepositoryLinksExtension(Extension):
    """Has one setting, ``repository``: the address of the repository, or nothing."""

    def __init__(self, **settings: Any) -> None:
        self.config = {"repository": ["", "Address of the repository"]}
        super().__init__(**settings)

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - Markdown's name
        """Add the treeprocessor."""
        links = RepositoryLinks(md, self.getConfig("repository") or "")
        md.treeprocessors.register(links, "repository_links", BEFORE_OTHERS)


def makeExtension(**settings: Any) -> RepositoryLinksExtension:  # noqa: N802 - Markdown's name
    """Return the extension; Markdown looks for this name."""
    return RepositoryLinksExtension(**settings)
