"""`dg-slurm logs --ranks`: what all ranks wrote, as it comes."""

from __future__ import annotations

import subprocess

from into.conftest import Place, call, command
from waiting import PATIENCE, eventually

from dagster_slurm_components.cli.logs import RankLogs
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.spec.profiles import load_profile

RANKS = """
    import os, sys, threading
    rank = os.environ["SLURM_PROCID"]
    print("begun as", rank, flush=True)
    print("oops", rank, file=sys.stderr, flush=True)
    sys.stdout.write("half of a li")
    sys.stdout.flush()
    while not os.path.exists(os.environ["GATE"]):
        threading.Event().wait(0.1)
    sys.stdout.write("ne")
"""


def test_all_ranks_are_merged_by_whole_lines_and_followed(near: Place) -> None:
    near.project.write("ranks.py", RANKS)
    job = near.begun(near.submit(payload="ranks.py", launcher={"type": "srun", "local_tasks": 3}))
    eventually(lambda: call("logs", job, "--ranks").stdout.count("begun as") == 3, "all ranks have begun")
    begun = "begun as 0\nhalf of a li"
    eventually(lambda: call("logs", job).stdout == begun, "the job's own log has the first")
    with subprocess.Popen(
        command("logs", job, "-f", "--ranks"), stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "begun as 0\n"
        near.gate.touch()
        rest, _ = follower.communicate(timeout=PATIENCE)
    lines = rest.replace("half of a li", "").split("\n")
    assert sorted(line for line in lines if "begun" in line) == ["1: begun as 1", "2: begun as 2"]
    for rank in "12":
        assert call("logs", job, "--ranks").stdout.count(f"{rank}: half of a line\n") == 1
    errors = call("logs", job, "--ranks", "--stderr").stdout
    assert "1: oops 1\n2: oops 2\n" in errors


def test_a_line_is_printed_once_it_is_whole(near: Place, capfdbinary) -> None:
    place = target(load_profile("local", start=near.project.root))
    ranks = near.project.root / "ranks"
    ranks.mkdir()
    logs = RankLogs(place, str(near.project.root), "out")
    logs.print(last=False)
    (ranks / "10.out").write_bytes(b"a\nb\xff")
    (ranks / "9.out").write_bytes(b"c\n")
    (ranks / "9.err").write_bytes(b"none of it\n")
    logs.print(last=False)
    (ranks / "10.out").write_bytes(b"a\nb\xff!")
    logs.print(last=False)
    logs.print(last=True)
    assert capfdbinary.readouterr().out == b"9: c\n10: a\n10: b\xff!\n"
