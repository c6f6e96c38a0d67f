"""Wait until every node of a Ray cluster has registered; runs with the payload's Python, for it needs Ray.

Usage: ray_wait.py ADDRESS TIMEOUT NODE...

Exit code 0: all are there. 3: some are not, and a line on stderr says which.
"""

import os
import sys
import time
from typing import Optional, Set, Tuple

MISSING = 3


def warning(version: str) -> str:
    """Return a warning of a Ray that lets in whoever reaches its ports, or nothing."""
    open_to = "whoever reaches these nodes over the network may use this Ray cluster, and run programs by it"
    text = f"dagster-slurm: {open_to}: Ray {version} asks for no token, 2.52 and newer do\n"
    return text if tuple(map(int, version.split(".")[:2])) < (2, 52) else ""


def alive(address: str) -> Tuple[Set[str], Optional[str]]:
    """Return the names of the nodes that have registered, or the reason why that can't be known yet."""
    import ray  # noqa: PLC0415 - a second, which is part of the wait

    try:
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        return {node["NodeName"] for node in ray.nodes() if node["Alive"]}, None
    except (ConnectionError, RuntimeError, ValueError) as exc:  # the head is still starting
        return set(), str(exc)


def main(address: str, timeout: str, *names: str) -> int:
    """Wait, and return the exit code."""
    deadline = time.monotonic() + float(timeout)
    while True:
        there, reason = alive(address)
        missing = sorted(set(names) - there)
        if not missing:
            if "SLURM_JOB_ID" in os.environ:  # elsewhere it listens on loopback alone
                sys.stderr.write(warning(sys.modules["ray"].__version__))
            return 0
        if time.monotonic() > deadline:
            late = ", ".join(missing) + (f" ({reason})" if reason else "")
            sys.stderr.write(
                f"dagster-slurm: after {timeout} s these nodes had not joined the Ray cluster: {late}\n"
            )
            return MISSING
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
