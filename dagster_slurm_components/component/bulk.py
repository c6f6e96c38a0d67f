"""Making many objects that all stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Hold Python's cyclic garbage collector back for a moment.

    A thousand definitions are some hundred thousand objects, none of them garbage. The collector would look at all
    of them several times, which takes a fifth of the load.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
