"""Write what is made from the code: pages of reference, and the navigation of the documentation site.

``python scripts/reference.py`` writes it; with ``--check`` it writes nothing, and exits with 1 where a file has
drifted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from pages.commands import cli_page
from pages.navigation import with_navigation
from pages.python_api import python_page
from pages.sites import site_pages
from pages.text import ROOT
from pages.yaml_files import yaml_page

WRITTEN: Mapping[str, Callable[[], str]] = {
    "docs/reference/python.md": python_page,
    "docs/reference/yaml.md": yaml_page,
    "docs/reference/cli.md": cli_page,
    "mkdocs.yml": with_navigation,
}
"""The files that are written, and what makes the text of each; further ones are the pages of sites."""
SITES = ROOT / "dagster_slurm_components" / "sites"


def main() -> None:
    """Write or check the files."""
    only_check = sys.argv[1:] == ["--check"]
    drifted = False
    texts = {**{name: text_of() for name, text_of in WRITTEN.items()}, **site_pages(SITES)}
    for name, text in texts.items():
        file = ROOT / name
        file.parent.mkdir(exist_ok=True)
        if (file.read_text("utf-8") if file.is_file() else "") == text:
            continue
        drifted = True
        if only_check:
            print(f"{name} is not what `make reference` writes.", file=sys.stderr)
        else:
            file.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    sys.exit(1 if drifted and only_check else 0)


if __name__ == "__main__":
    main()
