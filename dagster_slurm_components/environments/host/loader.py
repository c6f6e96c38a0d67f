# ruff: noqa: T201
"""Starts the builder on a host: makes modules of the texts that come along, and does one action.

``python3 -c BOOTSTRAP LENGTH`` reads this file from standard input, and this file one JSON object after it: ``modules``
(name and text of each, in an order in which each finds those it imports), ``action`` and ``order``. One JSON object is
printed. Nothing is written to a disk for it, so there is nothing to keep in step or to remove.
"""

import json
import os
import sys
import types
from typing import Any, Sequence, Tuple


def load(modules: Sequence[Tuple[str, str]]) -> Any:
    """Make each module known under its full name, by which the others import it; return the last one."""
    module = types.ModuleType("none")
    for name, text in modules:
        module = types.ModuleType(name)
        sys.modules[name] = module
        exec(compile(text, name, "exec"), vars(module))  # noqa: S102 - our own files, as the interpreter would
    return module


if __name__ == "__main__":
    os.umask(0o077)
    asked = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    print(json.dumps(load(asked["modules"]).main(asked["action"], asked["order"])))
