"""A PostgreSQL of a benchmark's own, from Debian's package ``postgresql``; it listens in its own folder alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

USER = "postgres"
INSTANCE = """
telemetry: {{enabled: false}}
storage:
  postgres:
    postgres_url: "postgresql+psycopg2://{user}@/{user}?host={folder}"
"""


@contextmanager
def postgres() -> Iterator[str]:
    """Run a PostgreSQL with its default settings; give the ``dagster.yaml`` of an instance that is kept there."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        raise SystemExit("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="dg-slurm-postgres-"))
    control = [str(programs[-1] / "pg_ctl"), "-D", str(folder / "data"), "-w"]
    try:
        if os.getuid() == 0:  # as which it refuses to run
            shutil.chown(folder, USER)
        _run([str(programs[-1] / "initdb"), "-D", str(folder / "data"), "-U", USER, "-A", "trust"])
        _run([*control, "-l", str(folder / "log"), "-o", f"-k {folder} -c listen_addresses=", "start"])
        try:
            yield INSTANCE.format(user=USER, folder=folder)
        finally:
            _run([*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: Sequence[str]) -> None:
    prefix = ["runuser", "-u", USER, "--"] if os.getuid() == 0 else []
    subprocess.run([*prefix, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")
