"""What an input costs that a host has already, or of which one file is new: seconds, calls, and bytes that travel.

A large file and a folder with a thousand files are inputs on the cluster's login node, over its real sshd. Measured are
the first time, the same again (the believed one, and the one that is looked for), and one changed file. ``--megabytes``
says how large the large file is; what is asked of a release is 10,000, in at most one call and 50 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _lab import Lab, lab
from uploads import host, line

from dagster_slurm_components.data.provide import Provider
from dagster_slurm_components.data.store import InputStore
from dagster_slurm_components.hosts.base import Host, Pipe, Reply
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.spec.profiles import load_profile

FILES = 1000
ROUND_TRIPS = (0, 30)
"""Milliseconds."""
LIMITS = {"calls": 1, "milliseconds": 50.0, "files_sent": 1}


@dataclass
class Counted:
    """A host that counts calls and the bytes that are sent with them."""

    inner: Host
    calls: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name."""
        return self.inner.name

    def call(self, op: str, params: Mapping[str, Any], blob: bytes = b"", *, timeout: float = 60.0) -> Reply:
        """Count a call, and do it."""
        self.calls.append(len(blob))
        return self.inner.call(op, params, blob, timeout=timeout)

    def open(self) -> Pipe:
        """Open a pipe."""
        return self.inner.open()

    def close(self) -> None:
        """End the connection."""
        self.inner.close()


def measured(counted: Counted, work: Callable[[], Any]) -> dict[str, float]:
    """Return seconds, calls and bytes of some work."""
    counted.calls.clear()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 4), "calls": len(counted.calls), "bytes_sent": sum(counted.calls)}


def figures(setting: Lab, port: int, folder: Path, workdir: Path) -> dict[str, dict[str, float]]:
    """Return what inputs cost over a line."""
    counted = Counted(host(setting, port, 4))
    store = InputStore(Satellite(counted), str(workdir))
    loaded = load_profile("staging", start=setting.project)
    usual = Provider(store, loaded, None, lambda text: None, lambda: None)
    sure = Provider(store, loaded, None, lambda text: None, lambda: None, sure=True)
    counted.call("ping", {})
    found = {}
    for name in ("large", "small"):
        path = folder / name
        found[f"{name}_first"] = measured(counted, lambda: sure.file(name, path, name))  # noqa: B023
        found[f"{name}_again"] = measured(counted, lambda: sure.file(name, path, name))  # noqa: B023
        found[f"{name}_believed"] = measured(counted, lambda: usual.file(name, path, name))  # noqa: B023
    (folder / "small" / "500").write_bytes(os.urandom(4096))
    found["small_one_new"] = measured(counted, lambda: sure.file("small", folder / "small", "small"))
    counted.close()
    return found


def make(folder: Path, megabytes: int) -> None:
    """Make a large file and a folder with many small ones, all at rest for a while."""
    (folder / "small").mkdir(parents=True)
    with (folder / "large").open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1_000_000))
    for number in range(FILES):
        (folder / "small" / str(number)).write_bytes(os.urandom(4096))
    past = time.time() - 60
    for path in (folder / "large", *(folder / "small").iterdir()):
        os.utime(path, (past, past))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=500)
    asked = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with lab() as setting:
        os.environ["DAGSTER_SLURM_CACHE"] = str(setting.project / "cache")
        make(setting.project / "source", asked.megabytes)
        for delay in ROUND_TRIPS:
            with line(setting, delay / 2000) as port:
                rows = figures(setting, port, setting.project / "source", setting.project / f"work-{delay}")
                found |= {f"{name}_{delay}_ms": row for name, row in rows.items()}
    calls = max(row["calls"] for name, row in found.items() if "_again" in name)
    slowest = max(row["seconds"] for name, row in found.items() if "large_again" in name) * 1000
    files = max(row["bytes_sent"] for name, row in found.items() if "one_new" in name)
    result = {**vars(asked), "found": found, "calls": calls, "milliseconds": round(slowest, 1)}
    met = calls <= LIMITS["calls"] and slowest <= LIMITS["milliseconds"]
    print(
        json.dumps({"benchmark": "inputs", **result, "new_file_bytes": files, "limits": LIMITS, "met": met})
    )


if __name__ == "__main__":
    main()
