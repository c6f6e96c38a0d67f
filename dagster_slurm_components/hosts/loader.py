"""Begins each program that is sent to a host (``hosts/program.py``): its modules are made from texts, in memory.

So the modules import each other by their full names there as here. Nothing is written to a disk for it: there is
nothing to keep in step or to remove. Standard library only, Python 3.6 or newer.
"""

import linecache
import sys
from types import ModuleType
from typing import Dict


def main(texts: Dict[str, str], entry: str) -> None:
    """Run the function ``main`` of a module; the texts of all come by name, each after those that it imports."""
    for name, text in texts.items():
        file = name.replace(".", "/") + ".py"
        # Tracebacks show lines from here.
        linecache.cache[file] = (len(text), None, text.splitlines(True), file)
        sys.modules[name] = ModuleType(name)
        exec(compile(text, file, "exec"), vars(sys.modules[name]))  # noqa: S102
    sys.modules[entry].main()
