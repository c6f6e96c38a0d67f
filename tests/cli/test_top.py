"""`dg-slurm top`: jobs that are alive, what they use, and the way out."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections import deque
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import pytest
from meter_fixture import GIB, head, sample
from project_fixture import Project
from waiting import PATIENCE, eventually

from dagster_slurm_components.cli.top_rows import COLUMNS, load, spark
from dagster_slurm_components.hosts.satellite.calls import FileData
from dagster_slurm_components.jobs.meter import UsageTail


@pytest.mark.parametrize(
    ("values", "most", "bars"),
    [([], 1, ""), ([0, 0.5, 1], 1, "▁▅█"), ([3, 9, -1], 4, "▆█▁"), ([0, 0], 0, ""), ([1e12], 2e12, "▅")],
)
def test_bars(values: list[float], most: float, bars: str) -> None:
    assert spark(values, most) == bars


def tail(data: bytes) -> UsageTail:
    made = UsageTail(recent=deque(maxlen=12))
    assert not made.take(FileData(True, len(data), 1, data), 0.0)
    return made


def test_nodes_are_drawn_together() -> None:
    gpus = {"gpus": [["GPU-1", "H100", 80 * GIB]]}
    lines = head(**gpus) + b"".join(
        sample(5 * each, 10 * each, gpu=[[0.5, 40 * GIB, None, None, None]]) for each in range(1, 5)
    )
    row = load([tail(lines), tail(head(node="n2") + sample(5, 0) + sample(10, 10))])
    assert row["memory"] == "1 of 64 GiB each (peak 2)"
    assert (row["cpu"], row["cpu_bars"]) == ("4 of 8", "▅"), "as far back as all nodes tell"
    assert row["gpu"] == "1 GPU: 50 %, 40 of 80 GiB"
    assert [node["node"] for node in row["nodes"]] == ["n1", "n2"]
    json.dumps(row)


def test_a_job_of_which_nothing_is_known_has_empty_cells() -> None:
    row = {**load([]), "ran_s": None, "time_limit_s": None, "expected_start": None}
    cells = [COLUMNS[name] for name in ("ran", "memory", "CPU", "GPU", "expected start")]
    assert [cell(row) for cell in cells if callable(cell)] == [""] * 5


@pytest.fixture
def running(project: Project, instance: dg.DagsterInstance) -> Any:
    """A job that runs until a file is there."""
    stop = project.root / "stop"
    project.write(
        "works.sh",
        f"""\
        until [ -e '{stop}' ]; do sleep 0.2; done
        """,
    )
    project.scripts("""
        scripts:
          - payload: works.sh
            assets: [{key: works}]
            resources: {time: "01:00:00"}
        """)
    run = Thread(target=project.run, args=("local",), kwargs={"instance": instance})
    run.start()
    try:
        work = project.root / ".dagster-slurm"
        yield eventually(
            lambda: next((each for each in work.glob("runs/*/works/0/usage/0.jsonl")), None),
            "a job that runs",
        )
    finally:
        stop.touch()
        run.join()


TOP = [sys.executable, "-m", "dagster_slurm_components.cli.main", "top"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200", "LINES": "20"}


def called(*args: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*TOP, *args], env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def test_a_running_job_is_shown_once_where_nobody_watches(running: Path) -> None:
    eventually(lambda: running.read_bytes().count(b"\n") > 4, "what the sampler writes")
    (row,) = json.loads(called("--json").stdout)
    assert (row["step"], row["state"], row["profile"]) == ("works", "RUNNING", "local")
    assert re.fullmatch(r"\S+( of \S+)? [KMG]iB \(peak \S+\)", row["memory"])
    assert re.fullmatch(r"\S+ of \d+", row["cpu"])
    titles, cells = [line.split("\t") for line in called("--once").stdout.splitlines()]
    shown = dict(zip(titles, cells, strict=True))
    assert re.fullmatch(r"\S+ of \d+ [▁▂▃▄▅▆▇█]{3,11}", shown["CPU"])
    assert re.fullmatch(r"00:\d\d:\d\d.*", shown["ran"])
    assert json.loads(called(row["run_id"][:6], "--json").stdout)[0]["job_id"] == row["job_id"]
    assert json.loads(called("no-such-run", "--json").stdout) == []


def test_all_profiles_are_looked_at_and_one_that_is_lost_is_named(project: Project, running: Path) -> None:
    project.profile("away", "host: {type: ssh, hostname: 127.0.0.1, port: 1, user: nobody}\nworkdir: /w\n")
    done = called("--all", "--json")
    assert [row["profile"] for row in json.loads(done.stdout)] == ["local"]
    assert done.stderr.startswith("away: ")
    assert "exclude each other" in called("--all", "--profile", "local", status=2).stderr


def test_on_a_terminal_it_goes_on_until_q(running: Path) -> None:
    eventually(lambda: running.read_bytes().count(b"\n") > 4, "what the sampler writes")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(TOP, stdin=theirs, stdout=theirs, stderr=theirs, env=ENVIRONMENT)
    os.close(theirs)
    seen = bytearray()

    def read() -> None:
        while True:
            try:
                seen.extend(os.read(ours, 4096))
            except OSError:  # its other end is closed
                return

    reader = Thread(target=read)
    reader.start()
    try:
        eventually(lambda: seen.count(b"1 jobs  (q ends this)") >= 2, "a second picture")
        os.write(ours, b"q")
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        reader.join()
        os.close(ours)
    text = seen.decode()
    assert "works" in text
    assert re.search(r"\(peak \S+\) [▁▂▃▄▅▆▇█]+ ", text)
    assert text.endswith("\x1b[?25h\x1b[?1049l"), "the screen is as it was"
