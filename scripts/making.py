"""What the scripts that make something have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable


class CannotMakeError(Exception):
    """Something could not be made here; the message says why."""


def exit_code(make: Callable[[], object]) -> int:
    """Make something and return 0; where that can't be, say why and return 1."""
    try:
        make()
    except CannotMakeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
