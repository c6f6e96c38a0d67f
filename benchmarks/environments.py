"""What an environment costs: new, unchanged, and with one package changed; beside a plain ``tar | ssh`` of it.

numpy, scipy, pandas and pyarrow from a ``uv.lock``, made on the cluster's login node through its real sshd. Needs the
package index once, for the lock and the wheels.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from _lab import Lab, lab

from dagster_slurm_components.environments.content import Request
from dagster_slurm_components.environments.machine import find_uv
from dagster_slurm_components.environments.plan import Provided
from dagster_slurm_components.environments.provide import provide
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.hosts.base import Host, Reply
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.program import shipped
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.resource import ComputeResource
from dagster_slurm_components.spec.environments import UvEnvironment
from dagster_slurm_components.spec.profiles import load_profile

PACKAGES = ["numpy", "scipy", "pandas", "pyarrow"]
ROUNDS = 20
LIMITS = {
    "unchanged_ms_on_host": 20,
    "unchanged_bytes": 0,
    "unchanged_calls": 1,
    "changed_files_sent": 1,
    "calls_to_submit": 1,
}


class Counted:
    """A host whose calls are counted."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.name = host.name
        self.open = host.open
        self.calls: list[tuple[str, float]] = []
        self.files: set[str] = set()

    def call(self, op: str, params: Mapping[str, Any], blob: bytes = b"", *, timeout: float = 60.0) -> Reply:
        """Do the call and note how long it took."""
        began = time.perf_counter()
        reply = self._host.call(op, params, blob, timeout=timeout)
        self.calls.append((op, time.perf_counter() - began))
        if op == "put":
            self.files.add(Path(str(params["path"])).parent.name)
        return reply

    def close(self) -> None:
        """End the connection."""
        self._host.close()


class Stages:
    """When each stage began."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Note it."""
        self.began.setdefault(stage, time.perf_counter())


def lock(project: Path, *packages: str) -> None:
    project.mkdir(exist_ok=True)
    listed = ", ".join(repr(package) for package in packages)
    text = (
        f'[project]\nname = "science"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = [{listed}]\n'
    )
    (project / "pyproject.toml").write_text(text)
    subprocess.run([find_uv()[0], "lock", "--quiet"], cwd=project, check=True)


def timed(
    project: Path, store: Store, form: Literal["folder", "squashfs"] = "folder"
) -> tuple[Provided, dict[str, float]]:
    """Provide the project's environment; return it and the seconds of each stage."""
    stages = Stages()
    spec = UvEnvironment(project=str(project), form=form)
    provided = provide(Request(spec, lambda field: project), store, progress=stages)
    end = time.perf_counter()
    starts = [*stages.began.values(), end]
    seconds: dict[str, float] = {
        stage: round(starts[i + 1] - starts[i], 2) for i, stage in enumerate(stages.began)
    }
    return provided, {"total": round(provided.seconds, 2), **seconds}


def calls_to_submit(setting: Lab, project: Path) -> int:
    """Run an asset in the project's environment; return how many calls its step made until its job was submitted."""
    payload = project / "payload.py"
    payload.write_text("import numpy\n")

    @dg.asset
    def science(context, compute: ComputeResource):  # type: ignore[no-untyped-def]
        environment = UvEnvironment(project=str(project))
        completed = compute.run(context=context, payload_path=payload, environment=environment)
        yield from completed.get_results()

    compute = ComputeResource(profile="staging", project=str(setting.project))
    host = target(load_profile("staging", start=setting.project)).satellite.host
    calls: list[str] = []
    ask = host.call

    def counted(op, *args, **kwargs):  # type: ignore[no-untyped-def]
        calls.append(op)
        return ask(op, *args, **kwargs)

    object.__setattr__(host, "call", counted)
    try:
        for _ in range(2):  # the first step finds out what the others know already
            calls.clear()
            dg.materialize([science], resources={"compute": compute})
    finally:
        object.__setattr__(host, "call", ask)
    return calls.index("submit") + 1


def as_image(project: Path, store: Store) -> dict[str, Any] | None:
    """Provide the same environment as one file, where mksquashfs is at hand; return seconds, bytes and inodes."""
    if shutil.which("mksquashfs") is None:
        return None
    made, seconds = timed(project, store, "squashfs")
    return {**seconds, "bytes": made.manifest["bytes"], "inodes": made.manifest["inodes"]}


def plain_copy(setting: Lab, prefix: Path, folder: Path) -> dict[str, float]:
    """Send a prefix by ``tar | ssh tar``; return seconds, bytes and inodes."""
    cluster = setting.cluster
    options = {
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": cluster.known_hosts_file,
        "IdentitiesOnly": "yes",
    }
    given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    ssh = ["ssh", "-F", "none", *given, "-i", str(cluster.key_file), "-p", str(cluster.ssh_port)]
    began = time.perf_counter()
    with subprocess.Popen(["tar", "-C", str(prefix), "-c", "."], stdout=subprocess.PIPE) as pack:
        remote = f"mkdir -p '{folder}' && tar -C '{folder}' -x"
        subprocess.run([*ssh, f"{cluster.user}@127.0.0.1", remote], stdin=pack.stdout, check=True)
    seconds = time.perf_counter() - began
    entries = list(folder.rglob("*"))
    size = sum(entry.lstat().st_size for entry in entries)
    return {"seconds": round(seconds, 2), "bytes": size, "inodes": len(entries) + 1}


def verification_ms(provided: Provided, folder: Path, mode: str) -> float:
    """Return the milliseconds that the comparison before the payload takes, the interpreter's start included."""
    program = folder / "verify_environment.py"
    program.write_text(shipped("environments/job/verify_environment.py"))
    argv = [f"{provided.folder}/prefix/bin/python", "-I", str(program), mode, f"{provided.folder}/.ready"]
    return statistics.median(_milliseconds([*argv, provided.folder]) for _ in range(5))


def _milliseconds(argv: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(argv, check=True)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    with lab() as setting:
        root = setting.project.parent
        os.environ["DAGSTER_SLURM_CACHE"] = str(root / "cache")
        place = target(load_profile("staging", start=setting.project))
        host = Counted(place.satellite.host)
        store = Store(Satellite(host), place.workdir, "staging")
        project = root / "science"

        lock(project, *PACKAGES)
        cold, cold_seconds = timed(project, store)
        elsewhere = Store(store.satellite, f"{place.workdir}/elsewhere", "staging")
        _, warm_seconds = timed(project, elsewhere)

        host.calls.clear()
        warm = [timed(project, store)[0] for _ in range(ROUNDS)]
        assert all(each.state == "ready" for each in warm)
        unchanged_calls = len(host.calls) / ROUNDS
        on_host = statistics.median(seconds for _, seconds in host.calls) * 1000

        lock(project, *PACKAGES, "six<1.17")
        host.files.clear()
        changed, changed_seconds = timed(project, store)
        python = f"{changed.folder}/prefix/bin/python"
        subprocess.run([python, "-I", "-c", "import numpy, scipy.stats, pandas, pyarrow"], check=True)
        copy = plain_copy(setting, Path(cold.folder, "prefix"), root / "copy")
        result = {
            "name": "environments",
            "packages": len(cold.manifest["packages"]),
            "new_s": cold_seconds,
            "new_bytes_sent": cold.sent,
            "new_with_fetched_wheels_s": warm_seconds,
            "inodes": cold.manifest["inodes"],
            "unchanged_ms": round(statistics.median(each.seconds for each in warm) * 1000, 1),
            "unchanged_ms_on_host": round(on_host, 2),
            "unchanged_bytes": sum(each.sent for each in warm),
            "unchanged_calls": unchanged_calls,
            "changed_s": changed_seconds,
            "changed_bytes_sent": changed.sent,
            "changed_files_sent": len(host.files),
            "squashfs": as_image(project, store),
            "calls_to_submit": calls_to_submit(setting, project),
            "verify_names_ms": round(verification_ms(cold, root, "names"), 1),
            "verify_full_ms": round(verification_ms(cold, root, "full"), 1),
            "interpreter_ms": round(
                statistics.median(_milliseconds([python, "-I", "-c", ""]) for _ in range(5)), 1
            ),
            "plain_tar_ssh": copy,
            "sent_over_plain": round(cold.sent / copy["bytes"], 3),
            "changed_over_plain": round(changed.sent / copy["bytes"], 6),
            "limits": LIMITS,
        }
    print(json.dumps(result))
    assert all(result[name] <= limit for name, limit in LIMITS.items()), "over a limit"


if __name__ == "__main__":
    main()
