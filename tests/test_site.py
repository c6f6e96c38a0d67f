"""The documentation site: it builds without a warning, its links lead somewhere, it loads nothing from elsewhere."""

from __future__ import annotations

import os
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORGE = "https://forge.example.org/project"

pytestmark = pytest.mark.xdist_group("site")  # built once


class Page(HTMLParser):
    """What a page links to, what it loads, and where links can lead to within it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "prev", "next", "edit"):
            self.loads.append(values["href"])
        elif tag in ("script", "img", "iframe", "source") and values.get("src"):
            self.loads.append(values["src"])


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    """Build the site as `make docs` does; give its pages by their path, as a browser names it."""
    built = subprocess.run(
        ["make", "docs"],
        cwd=ROOT,
        env={**os.environ, "DOCS_REPOSITORY": FORGE, "NO_COLOR": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert built.returncode == 0, built.stdout
    files = (ROOT / "site").rglob("index.html")
    return {f"/{file.relative_to(ROOT / 'site').parent}/".replace("/./", "/"): Page(file) for file in files}


@pytest.mark.slow
@pytest.mark.xdist_group("site")
def test_every_link_leads_somewhere(pages: dict[str, Page]) -> None:
    assert len(pages) > 40
    for path, page in pages.items():
        for link in page.links:
            where = urlsplit(urljoin(path, link))
            if where.netloc or where.scheme:
                continue
            target = pages.get(where.path)
            assert target or (ROOT / "site" / where.path.lstrip("/")).is_file(), f"{path}: {link}"
            assert not (target and where.fragment) or unquote(where.fragment) in target.ids, f"{path}: {link}"


@pytest.mark.slow
@pytest.mark.xdist_group("site")
def test_files_beside_the_documents_are_in_the_repository(pages: dict[str, Page]) -> None:
    links = {link for page in pages.values() for link in page.links if link.startswith(f"{FORGE}/blob/main/")}
    assert {f"{FORGE}/blob/main/examples/{name}" for name in ("digits", "stations")} <= links
    assert [link for link in links if not (ROOT / link.removeprefix(f"{FORGE}/blob/main/")).exists()] == []


@pytest.mark.slow
@pytest.mark.xdist_group("site")
def test_nothing_is_loaded_from_elsewhere(pages: dict[str, Page]) -> None:
    assert {address for page in pages.values() for address in page.loads if urlsplit(address).netloc} == set()
