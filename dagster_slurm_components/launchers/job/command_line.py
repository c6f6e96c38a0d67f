"""The command line of the programs in this folder: options, ``--``, the payload.

Runs inside the job on Python 3.6 or newer, with the standard library only.
"""

import argparse
import os
import sys
from typing import Callable, List, Tuple


def split(parser: argparse.ArgumentParser) -> Tuple[argparse.Namespace, List[str]]:
    """Return the parsed options and the payload of this program's command line."""
    words = sys.argv[1:]
    at = words.index("--")
    payload = words[at + 1 :]
    if payload and payload[0] == "@python":
        payload[0] = os.environ["DAGSTER_SLURM_PYTHON"]
    return parser.parse_args(words[:at]), payload


def program(name: str) -> List[str]:
    """Return the start of the command line that runs another program of this folder.

    Without site-packages: it starts faster, and needs none.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    return [os.environ["DAGSTER_SLURM_PYTHON"], "-E", "-s", "-S", os.path.join(here, name)]


def finish(main: Callable[[], int]) -> None:
    """Run a program and end with its exit code; what keeps it from starting is told in one line."""
    try:
        sys.exit(main())
    except OSError as exc:
        missing = isinstance(exc, FileNotFoundError)
        reason = f"there is no {exc.filename} on this node" if missing else str(exc)
        sys.stderr.write(f"dagster-slurm: the launcher can't start: {reason}\n")
        sys.exit(127 if missing else 1)
