"""Which Python of a payload the debugger gets into: real processes, as launchers start them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dagster_slurm_components.jobs.attach_debugger import pythons

# Starts others in its place: RANK or nothing of each, and tells their ids.
AGENT = """
import os, subprocess, sys
waits = "import sys; print('begun', flush=True); sys.stdin.read()"
for rank in sys.argv[1:]:
    env = {**os.environ, "RANK": rank} if rank.isdigit() else dict(os.environ)
    started = subprocess.Popen([sys.executable, "-c", waits], env=env, stdout=subprocess.PIPE)
    started.stdout.readline()
    print(rank, started.pid, flush=True)
print("all", os.getpid(), flush=True)
sys.stdin.read()
"""
Start = Callable[..., dict[str, int]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an agent and its processes; return their ids by rank, and the agent's as `all`."""
    started: list[subprocess.Popen[str]] = []

    def run(*ranks: str) -> dict[str, int]:
        env = {name: value for name, value in os.environ.items() if name not in ("RANK", "SLURM_PROCID")}
        agent = subprocess.Popen(
            [sys.executable, "-c", AGENT, *ranks],
            env={**env, "DAGSTER_SLURM_RUN_DIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(agent)
        assert agent.stdout is not None
        told = [agent.stdout.readline().split() for _ in range(len(ranks) + 1)]
        return {rank: int(pid) for rank, pid in told}

    yield run
    for agent in started:
        agent.communicate()  # its end of the pipe is closed: all read to their end


def test_it_is_the_rank_and_not_the_agent_that_has_started_it(start: Start, tmp_path: Path) -> None:
    ids = start("0", "helper")
    assert set(pythons(str(tmp_path), "")) == {ids["0"]}


def test_of_several_ranks_one_has_to_be_named(start: Start, tmp_path: Path) -> None:
    ids = start("0", "1")
    assert set(pythons(str(tmp_path), "")) == {ids["0"], ids["1"]}
    assert set(pythons(str(tmp_path), "1")) == {ids["1"]}


def test_without_ranks_it_is_the_one_that_has_started_the_others(start: Start, tmp_path: Path) -> None:
    ids = start("helper")
    assert set(pythons(str(tmp_path), "")) == {ids["all"]}
