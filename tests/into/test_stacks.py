"""`dg-slurm stacks`: where the payload's processes stand, by the kernel and by a py-spy in its environment."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from into.conftest import Place, call
from waiting import eventually

from dagster_slurm_components.jobs.into import _by_node

SPY = """#!/bin/sh
# A py-spy for payloads that stand where this says; the real one says it so.
[ "$1 $2 $3" = "dump --nonblocking --pid" ] || exit 2
printf 'Process %s: python\\nPython v3\\n\\nThread %s (idle): "MainThread"\\n    wait (threading.py:331)\\n' "$4" "$4"
"""


def test_the_kernels_view_without_py_spy(near: Place) -> None:
    job = near.begun(near.submit(env={"PATH": "/usr/bin:/bin"}))
    said = call("stacks", "works").stdout
    (process,) = [line for line in said.splitlines() if ", process " in line]
    assert process.endswith("waits.py ")
    assert "thread " in said
    assert "with py-spy in the payload's environment" in said
    near.ended_well(job)


def test_frames_by_the_py_spy_of_the_payloads_environment(near: Place) -> None:
    folder = near.project.root / "bin"
    folder.mkdir()
    (folder / "py-spy").write_text(SPY)
    (folder / "py-spy").chmod(0o755)
    job = near.begun(
        near.submit(env={"PATH": f"{folder}:/usr/bin:/bin"}, launcher={"type": "srun", "local_tasks": 2})
    )
    ranks = near.project.root / ".dagster-slurm" / "runs"
    eventually(
        lambda: any("begun" in path.read_text() for path in ranks.rglob("ranks/1.out")), "both ranks run"
    )
    said = call("stacks", job).stdout
    assert said.count("wait (threading.py:331)") == 2
    assert ", rank 0: " in said
    assert ", rank 1: " in said
    assert "rank.py" not in said, "only the payload"
    near.ended_well(job)


@pytest.mark.slow
def test_all_nodes_of_a_job_behind_two_factors(far: Place) -> None:
    spy = shutil.which("py-spy")
    path = f"{Path(spy).parent}:/usr/bin:/bin" if spy else "/usr/bin:/bin"
    launcher, asked = {"type": "srun", "output": "all"}, {"nodes": 2, "ntasks_per_node": 1}
    job = far.begun(far.submit(launcher=launcher, resources=asked, env={"PATH": path}))
    eventually(lambda: call("logs", job).stdout.count("begun") == 2, "both ranks run")
    said = call("stacks", job).stdout
    lines = [line for line in said.splitlines() if ", process " in line]
    assert len({line.split(",")[0] for line in lines}) == len(lines) == 2, said
    assert [line.split(", rank ")[1][0] for line in lines] == ["0", "1"]
    assert ("waits.py:" in said) == bool(spy)
    assert far.one_login()
    far.ended_well(job)


def test_what_nodes_say_at_once_is_brought_together() -> None:
    lines = ["10: tenth", " 2: a: b", "10: more", " 2: c"]
    assert _by_node(lines) == ["a: b", "c", "tenth", "more"]
