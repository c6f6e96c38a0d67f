"""A PostgreSQL of one test's or benchmark's own, from Debian's package; it listens in its own folder alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

USER = "postgres"
STORAGE = """
storage:
  postgres:
    postgres_url: "postgresql+psycopg2://{user}@/{user}?host={folder}"
"""


class NoPostgresError(RuntimeError):
    """What it takes is not installed."""


@contextmanager
def postgres() -> Iterator[str]:
    """Run a PostgreSQL with its default settings; give what a ``dagster.yaml`` says to have Dagster keep all there.

    Raises:
        NoPostgresError: Its programs are missing, or Dagster's package for it.
    """
    if find_spec("dagster_postgres") is None:
        raise NoPostgresError("Dagster can't use PostgreSQL: pip install dagster-postgres")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        raise NoPostgresError("PostgreSQL is not installed: apt-get install postgresql")
    initdb, folder = programs[-1], Path(tempfile.mkdtemp(prefix="dg-slurm-postgres-"))
    control = [str(initdb.with_name("pg_ctl")), "-D", str(folder / "data"), "-w"]
    try:
        if os.getuid() == 0:  # as which it refuses to run
            shutil.chown(folder, USER)
        _run([str(initdb), "-D", str(folder / "data"), "-U", USER, "-A", "trust"])
        _run([*control, "-l", str(folder / "log"), "-o", f"-k {folder} -c listen_addresses=", "start"])
        try:
            yield STORAGE.format(user=USER, folder=folder)
        finally:
            _run([*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: Sequence[str]) -> None:
    prefix = ["runuser", "-u", USER, "--"] if os.getuid() == 0 else []
    subprocess.run([*prefix, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")
