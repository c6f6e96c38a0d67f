"""Files to a host and back, by ``dg-slurm put`` and ``get`` beside rsync, scp and tar over ssh, with and without delay.

One large file and many small ones of 4 KiB through the cluster's real sshd: seconds from the connection's begin to the
last file in its place, of the best plain tool over ours, and our memory. A tool that is not installed is left out.
``--megabytes`` and ``--files`` say how much; what is asked of a release are 5,000 and 100,000.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from _lab import Lab, lab
from uploads import host, line

from dagster_slurm_components.environments.host.tools import hash_of
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.download import Wanted, download
from dagster_slurm_components.jobs.outputs import File
from dagster_slurm_components.jobs.upload import lacking, sources, upload

ROUND_TRIPS = (0, 30)
"""Milliseconds."""
LIMITS = {"of_the_best": 0.9, "memory_mib": 150}
TOOLS = {"large": ("rsync", "scp", "tar"), "small": ("rsync", "tar")}
"""Of small files scp takes each with round trips of its own: minutes, and never the best."""


def wanted(folder: Path, here: Path) -> list[Wanted]:
    """Return the files of a folder as outputs that are to be brought here."""
    names = sorted(each.relative_to(folder) for each in folder.rglob("*") if each.is_file())
    files = [File(str(each), (folder / each).stat().st_size, hash_of(folder / each)) for each in names]
    return [Wanted(each, str(folder), here) for each in files]


def ours(setting: Lab, port: int, way: str, source: Path, target: Path) -> tuple[float, float]:
    """Return seconds and MiB of a process of its own that brings a folder to a host, or back."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            files = wanted(source, target) if way == "out" else []
            began = time.perf_counter()
            there = host(setting, port, 4)
            satellite = Satellite(there)
            if way == "in":
                folders, found = sources([source], str(target))
                upload(satellite, folders, lacking(satellite, found, force=False))
            else:
                download(satellite, files, target)
            taken = time.perf_counter() - began
            there.close()
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            os.write(writing, json.dumps([taken, most]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        seconds, memory = json.loads(answer.read())
    os.waitpid(child, 0)
    return float(seconds), float(memory)


def plain(setting: Lab, port: int, tool: str, way: str, places: tuple[Path, Path]) -> float:
    """Return the seconds that a plain tool takes for the same."""
    cluster, (source, target) = setting.cluster, places
    options = ["-i", str(cluster.key_file), "-o", f"UserKnownHostsFile={setting.project}/known_hosts-{port}"]
    options += ["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
    where = f"{cluster.user}@127.0.0.1"
    ssh = ["ssh", "-p", str(port), *options]
    target.mkdir(parents=True)
    ends = (str(source), f"{where}:{target}/") if way == "in" else (f"{where}:{source}", f"{target}/")
    if tool == "tar":
        packs, unpacks = (
            ["tar", "-C", str(source.parent), "-cf", "-", source.name],
            ["tar", "-C", str(target), "-xf", "-"],
        )
        first, second = (packs, [*ssh, where, *unpacks]) if way == "in" else ([*ssh, where, *packs], unpacks)
        began = time.perf_counter()
        with subprocess.Popen(first, stdout=subprocess.PIPE) as sender:
            subprocess.run(second, stdin=sender.stdout, check=True)
        return time.perf_counter() - began
    rsync = os.environ.get("RSYNC", "rsync")
    argv = {
        "scp": ["scp", "-q", "-r", "-P", str(port), *options, *ends],
        "rsync": [rsync, "-r", f"--rsync-path={rsync}", "-e", " ".join(ssh), *ends],
    }[tool]
    began = time.perf_counter()
    subprocess.run(argv, check=True)
    return time.perf_counter() - began


def made(folder: Path, megabytes: int, files: int) -> dict[str, Path]:
    """Make what travels: a folder with one large file, and one with many small ones."""
    (folder / "large").mkdir(parents=True)
    with (folder / "large" / "file").open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1_000_000))
    for number in range(files):
        path = folder / "small" / str(number // 1000) / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(4096))
    return {"large": folder / "large", "small": folder / "small"}


def measured(setting: Lab, tools: list[str], work: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Return seconds by what travelled and by whom, and our memory."""
    found: dict[str, dict[str, float]] = {}
    target = setting.project / "target"

    def cleared(measure: Callable[[], tuple[float, float]]) -> tuple[float, float]:
        try:
            return measure()
        finally:
            shutil.rmtree(target, ignore_errors=True)

    for delay in ROUND_TRIPS:
        with line(setting, delay / 2000) as port:
            host(setting, port, 1).close()  # writes the file of known hosts
            for kind, source in work.items():
                for way in ("in", "out"):
                    row = found[f"{kind}_{way}_{delay}_ms"] = {}
                    seconds, row["memory_mib"] = cleared(lambda: ours(setting, port, way, source, target))  # noqa: B023
                    row["ours"] = seconds
                    for tool in (each for each in TOOLS[kind] if each in tools):
                        row[tool] = cleared(
                            lambda: (plain(setting, port, tool, way, (source, target)), 0.0)  # noqa: B023
                        )[0]
                    row["of_the_best"] = min(row[tool] for tool in TOOLS[kind] if tool in row) / seconds
                    print(f"{kind} {way} {delay} ms: {row}", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--files", type=int, default=5000)
    asked = parser.parse_args()
    programs = {"rsync": os.environ.get("RSYNC", "rsync"), "scp": "scp", "tar": "tar"}
    tools = [each for each, program in programs.items() if shutil.which(program)]
    with lab() as setting:
        found = measured(setting, tools, made(setting.project / "source", asked.megabytes, asked.files))
    rows = {name: {what: round(value, 2) for what, value in row.items()} for name, row in found.items()}
    worst = min(row["of_the_best"] for row in rows.values())
    memory = max(row["memory_mib"] for row in rows.values())
    result = {**vars(asked), "left_out": sorted({*programs} - {*tools}), "seconds": rows}
    result |= {"of_the_best": worst, "memory_mib": memory}
    met = worst >= LIMITS["of_the_best"] and memory <= LIMITS["memory_mib"]
    print(json.dumps({"benchmark": "transfer", **result, "limits": LIMITS, "met": met}))


if __name__ == "__main__":
    main()
