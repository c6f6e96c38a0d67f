"""Begins each program that is sent to a host (``hosts/program.py``): its modules are imported from texts, in memory.

So the modules import each other by their full names there as here, in whatever order. Nothing is written to a disk
for it: there is nothing to keep in step or to remove. Standard library only, Python 3.6 or newer.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec
from typing import Any, Dict, Optional


class Texts:
    """Finds and runs modules whose texts came along, by their full names; the packages they lie in are empty."""

    def __init__(self, texts: Dict[str, str]) -> None:
        self._texts = texts

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Optional[ModuleSpec]:
        """Return how a module is loaded, if it is ours."""
        package = any(name.startswith(fullname + ".") for name in self._texts)
        loader: Any = self  # not derived from importlib.abc, which alone takes 5 ms to import
        known = package or fullname in self._texts
        return ModuleSpec(fullname, loader, is_package=package) if known else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the interpreter."""

    def exec_module(self, module: Any) -> None:
        """Run a module's text, under the name of the file it was read from."""
        name = module.__name__
        exec(compile(self.get_source(name), name.replace(".", "/") + ".py", "exec"), vars(module))  # noqa: S102

    def get_source(self, fullname: str) -> str:
        """Return a module's text; tracebacks show their lines from it."""
        return self._texts.get(fullname, "")


def main(texts: Dict[str, str], entry: str) -> None:
    """Run the function ``main`` of a module."""
    sys.meta_path.insert(0, Texts(texts))
    importlib.import_module(entry).main()
