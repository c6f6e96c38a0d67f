"""The static files of the shipped launchers, which travel to the run directory byte for byte."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent


@cache
def shell(name: str) -> str:
    """Return the text of a static shell file."""
    return (_HERE / "shell" / name).read_text(encoding="utf-8")


@cache
def _program(name: str) -> str:
    return (_HERE / "job" / name).read_text(encoding="utf-8")


def programs(*names: str) -> dict[str, str]:
    """Return the Python files that run inside the job, by their path in the run directory."""
    return {f"launch/{name}": _program(name) for name in names}


SUPERVISION = ("command_line.py", "processes.py", "records.py", "rank.py")
"""What every launcher with several processes needs."""
