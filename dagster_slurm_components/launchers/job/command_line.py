"""What the programs of this folder share: options, ``--``, the payload; how they start each other.

They run inside the job, on Python 3.6 or newer, with the standard library only.
"""

import argparse
import os
import sys
from typing import Any, Callable, Dict, List, Tuple


def split(**defaults: Any) -> Tuple[argparse.Namespace, List[str]]:
    """Return the options and the payload of this program's command line: OPTIONS... -- PAYLOAD...

    An option has its default's type; a type instead of a default has to be given, a list collects.
    """
    parser = argparse.ArgumentParser()
    for name, default in defaults.items():
        how: Dict[str, Any] = {"default": default, "type": type(default)}
        if isinstance(default, type):
            how = {"required": True, "type": default}
        elif isinstance(default, bool):
            how = {"action": "store_true"}
        elif isinstance(default, list):
            how = {"action": "append", "default": default}
        parser.add_argument("--" + name.replace("_", "-"), **how)
    payload = sys.argv[sys.argv.index("--") + 1 :]
    if payload and payload[0] == "@python":
        payload[0] = os.environ["DAGSTER_SLURM_PYTHON"]
    return parser.parse_args(own_words()), payload


def own_words() -> List[str]:
    """Return this program's options as they were given, for a program that is told the same."""
    return sys.argv[1 : sys.argv.index("--")]


def program(name: str, python: str = "") -> List[str]:
    """Return the start of the command line that runs another program of this folder.

    Without site-packages: it starts faster, and needs none.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    return [python or os.environ["DAGSTER_SLURM_PYTHON"], "-E", "-s", "-S", os.path.join(here, name)]


def payloads_python(options: argparse.Namespace) -> List[str]:
    """Return the start of the command line of what needs the payload's packages: in its container, if it has one."""
    return [*options.inside, options.python or os.environ["DAGSTER_SLURM_PYTHON"]]


def rank(
    options: argparse.Namespace, number: str, signals: str, payload: List[str], python: str = ""
) -> List[str]:
    """Return the command line of one rank; ``number`` is the variable that will hold its number."""
    own = ["--number=" + number, "--output=" + options.output, f"--grace={options.grace:g}"]
    return [*program("rank.py", python), *own, "--signals=" + signals, "--", *payload]


def without_pipes() -> Dict[str, str]:
    """Return the environment of what does not speak to Dagster: ranks but the first, Ray's own processes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER_PIPES_")}


def of_payload(pipes: bool = True) -> Dict[str, str]:
    """Return the payload's environment: this one, without the locale that Python gives itself where there is none."""
    env = dict(os.environ) if pipes else without_pipes()
    if not env.pop("DAGSTER_SLURM_LC_CTYPE", "set"):  # from launch_python.sh
        env.pop("LC_CTYPE", None)
    return env


def finish(main: Callable[[], int]) -> None:
    """Run a program and end with its exit code; what keeps it from starting is told in one line."""
    try:
        sys.exit(main())
    except OSError as exc:
        missing = isinstance(exc, FileNotFoundError)
        reason = f"there is no {exc.filename} on this node" if missing else str(exc)
        sys.stderr.write(f"dagster-slurm: the launcher can't start: {reason}\n")
        sys.exit(127 if missing else 1)
