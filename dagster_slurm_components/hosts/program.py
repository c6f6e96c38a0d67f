"""What runs on hosts: files as they are, and programs, which are a few of our modules sent as one text.

These are the very files that lie here: which ones, their imports say. They import each other by ``from
dagster_slurm_components... import``, never in a circle, use the standard library alone, and run on Python 3.6.
"""

import re
from functools import cache
from pathlib import Path

from dagster_slurm_components.hosts import loader

_ROOT = Path(__file__).parents[2]

BOOTSTRAP = (
    "import sys;"
    'sys.version_info<(3,6)and sys.exit("needs Python 3.6 or newer, this is "+sys.version.split()[0]);'
    'exec(compile(sys.stdin.buffer.read(int(sys.argv[1])),"loader.py","exec"),{"__name__":"__main__"})'
)
"""For ``python3 -c BOOTSTRAP LENGTH``: reads a program from standard input and runs it.

Free of quotes ``'``, backslashes, ``!``, ``$`` and newlines: in single quotes it means the same to sh, bash,
csh and fish.
"""


@cache
def shipped(path: str) -> str:
    """Return the text of a file of this package that goes to hosts as it is, such as ``jobs/shell/job.sh``."""
    return Path(__file__).parents[1].joinpath(path).read_text("utf-8")


@cache
def program(entry: str) -> bytes:
    """Return the text of the program that runs ``main`` of a module."""
    begin = Path(loader.__file__).read_text("utf-8")
    return f"{begin}\n\nmain({modules(entry)!a}, {entry!r})\n".encode()


def modules(entry: str) -> dict[str, str]:
    """Return the texts of a module and of those of its own package that it imports, by name, the imported first."""
    ours = re.compile(rf"^\s*(?:from|import) ({entry.partition('.')[0]}\.[\w.]+)", re.MULTILINE)
    found: dict[str, str] = {}

    def find(name: str) -> None:
        text = _ROOT.joinpath(*name.split(".")).with_suffix(".py").read_text("utf-8")
        for other in ours.findall(text):
            if other not in found:
                find(other)
        found[name] = text

    find(entry)
    return found
